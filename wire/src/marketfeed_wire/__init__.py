"""The message contract between the workers that publish market data and the consumers that store it.

A leaf package: it has no broker, database or venue code. See docs/architecture.md.
"""

from marketfeed_wire.codec import (
    DecodeError,
    decode_book_ticker,
    decode_trade,
    encode,
    is_decimal,
    is_name,
    trade_identity,
)
from marketfeed_wire.identity import same_quote, same_trade
from marketfeed_wire.ledger import (
    Checkpoint,
    Gap,
    GapState,
    QuoteCheckpoint,
    checkpoint_key,
    decode_checkpoint,
    decode_gap,
    decode_quote_checkpoint,
    encode_gap,
    gap_key,
    is_quote_checkpoint_key,
    quote_checkpoint_key,
)
from marketfeed_wire.messages import MAX_ID, MAX_TIME_US, SCHEMA_VERSION, BookTicker, Origin, Trade
from marketfeed_wire.rejected import MAX_RAW_BYTES, RejectedMessage, decode_rejected
from marketfeed_wire.topics import (
    BOOK_TICKER,
    GAPS,
    LEDGER_POLICY,
    PROGRESS,
    REJECTED,
    TRADES,
    key_for,
    market_data_policy,
)

__all__ = [
    "BOOK_TICKER",
    "GAPS",
    "LEDGER_POLICY",
    "MAX_ID",
    "MAX_RAW_BYTES",
    "MAX_TIME_US",
    "PROGRESS",
    "REJECTED",
    "SCHEMA_VERSION",
    "TRADES",
    "BookTicker",
    "Checkpoint",
    "DecodeError",
    "Gap",
    "GapState",
    "Origin",
    "QuoteCheckpoint",
    "RejectedMessage",
    "Trade",
    "checkpoint_key",
    "decode_book_ticker",
    "decode_checkpoint",
    "decode_gap",
    "decode_quote_checkpoint",
    "decode_rejected",
    "decode_trade",
    "encode",
    "encode_gap",
    "gap_key",
    "is_decimal",
    "is_name",
    "is_quote_checkpoint_key",
    "key_for",
    "market_data_policy",
    "quote_checkpoint_key",
    "same_quote",
    "same_trade",
    "trade_identity",
]
