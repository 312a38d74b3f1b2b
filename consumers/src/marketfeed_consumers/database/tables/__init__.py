"""The tables: one module each, with its columns, its SQL as constants and the format of its rows.

`trades` and `book_tickers` contain messages; `candles_1m` and `top_of_book` are derived from them; `high_water_marks`
and `missing_trades` are the stored ranges; `consumer_offsets` has the committed offsets and leases; `dead_letters` the
poison messages. The DDL is in migrations/.
"""
