"""Pure part: which messages of a batch are new, and the rows, candles and ranges that follow from them."""
