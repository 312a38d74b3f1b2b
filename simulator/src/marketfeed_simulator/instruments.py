"""Listed symbols: assets, tick size, status, and their entries in exchangeInfo."""

from dataclasses import dataclass, field
from typing import Any, Final

UNIT: Final = 10**8
"""Prices and quantities are integers in units of 1e-8, the venue's eight decimals."""

STATUSES: Final = (
    "PRE_TRADING",
    "TRADING",
    "POST_TRADING",
    "END_OF_DAY",
    "HALT",
    "AUCTION_MATCH",
    "BREAK",
    "CANCEL_ONLY",
)

_QUOTES: Final = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD", "BTC", "ETH", "BNB", "EUR", "TRY", "DAI")

# Orders of magnitude of August 2024: base asset -> price, tick, typical size of a fill.
_KNOWN: Final = {
    "BTC": ("61686.00", "0.01", "0.012"),
    "ETH": ("2682.50", "0.01", "0.21"),
    "BNB": ("512.30", "0.10", "0.9"),
    "SOL": ("154.20", "0.01", "4.2"),
    "XRP": ("0.5850", "0.0001", "480"),
    "ADA": ("0.3390", "0.0001", "700"),
    "DOGE": ("0.10420", "0.00001", "2600"),
    "AVAX": ("21.75", "0.01", "14"),
    "LINK": ("10.45", "0.01", "25"),
    "DOT": ("4.710", "0.001", "60"),
    "LTC": ("59.80", "0.01", "4"),
    "BCH": ("341.20", "0.10", "0.8"),
    "UNI": ("5.990", "0.001", "45"),
    "ATOM": ("4.680", "0.001", "60"),
    "XLM": ("0.0981", "0.0001", "3000"),
    "SHIB": ("0.00001367", "0.00000001", "12000000"),
}


def decimal(units: int) -> str:
    """Format `units` of 1e-8 with eight decimals, as the venue does."""
    return f"{units // UNIT}.{units % UNIT:08d}"


def units(text: str) -> int:
    """Parse a decimal string into units of 1e-8.

    Raises:
        ValueError: the text is not a plain number with at most eight decimals.
    """
    whole, _, part = text.partition(".")
    if len(part) > 8 or not (whole + part).isdigit() or not text.isascii():
        raise ValueError(f"{text!r} is not a decimal number of at most eight decimals")
    return int(whole or "0") * UNIT + int(part.ljust(8, "0"))


@dataclass(slots=True)
class Instrument:
    """A listed symbol. `price`, `tick` and `size` are in units of 1e-8, for generated markets only."""

    symbol: str
    status: str = "TRADING"
    price: int = 100 * UNIT
    tick: int = UNIT // 100
    size: int = UNIT
    base: str = field(init=False)
    quote: str = field(init=False)

    def __post_init__(self) -> None:
        self.quote = next(
            (quote for quote in _QUOTES if self.symbol.endswith(quote) and self.symbol != quote), ""
        )
        self.base = self.symbol.removesuffix(self.quote) if self.quote else self.symbol

    def exchange_info(self) -> dict[str, Any]:
        """Return the symbol's entry in exchangeInfo."""
        return {
            "symbol": self.symbol,
            "status": self.status,
            "baseAsset": self.base,
            "baseAssetPrecision": 8,
            "quoteAsset": self.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
            "icebergAllowed": True,
            "ocoAllowed": True,
            "quoteOrderQtyMarketAllowed": True,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": decimal(self.tick),
                    "maxPrice": "10000000.00000000",
                    "tickSize": decimal(self.tick),
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": "0.00000001",
                    "maxQty": "90000000000.00000000",
                    "stepSize": "0.00000001",
                },
            ],
            "permissions": ["SPOT"],
        }


def instrument(symbol: str, *, status: str = "TRADING") -> Instrument:
    """Return the instrument `symbol`, at a realistic price for a known base asset, otherwise at 100."""
    made = Instrument(symbol, status)
    price, tick, size = _KNOWN.get(made.base, ("100.00", "0.01", "5"))
    made.price, made.tick, made.size = units(price), units(tick), units(size)
    return made


def invented(count: int) -> list[str]:
    """Return `count` symbols: the known ones against USDT first, then SIM0001USDT and so on."""
    names = [f"{base}USDT" for base in _KNOWN]
    names += [f"SIM{number:04d}USDT" for number in range(1, count - len(names) + 1)]
    return names[:count]
