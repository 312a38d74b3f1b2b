"""The tables: one module each, with its columns, its SQL as constants and how a row of it is written.

`trades` and `book_tickers` hold messages; `candles_1m` and `top_of_book` are derived from them;
`high_water_marks` and `missing_trades` say what is stored; `consumer_offsets` how far each topic was read;
`dead_letters` what could not be stored. Their DDL is in migrations/.
"""
