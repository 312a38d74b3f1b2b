"""Validation of symbols, and its table."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from marketfeed_workers.validate import readable, table, validate
from marketfeed_workers.venues.venue import SymbolInfo

LISTED = {
    "BTCUSDT": SymbolInfo("TRADING", True),
    "ETHUSDT": SymbolInfo("TRADING", True),
    "HALTUSDT": SymbolInfo("HALT", False),
    "AVERYLONGSYMBOLUSDT": SymbolInfo("BREAK", False),
}


@pytest.mark.parametrize(
    ("asked", "accepted", "refused"),
    [
        pytest.param(("BTCUSDT",), ["BTCUSDT"], {}, id="a symbol that trades"),
        pytest.param(("ETHUSDT", "BTCUSDT"), ["ETHUSDT", "BTCUSDT"], {}, id="in the given order"),
        pytest.param(("NOPE",), [], {"NOPE": "unknown to the venue"}, id="one that does not exist"),
        pytest.param(("HALTUSDT",), [], {"HALTUSDT": "not trading: HALT"}, id="one that is halted"),
        pytest.param(
            ("NOPE", "BTCUSDT", "HALTUSDT"),
            ["BTCUSDT"],
            {"NOPE": "unknown to the venue", "HALTUSDT": "not trading: HALT"},
            id="valid ones are accepted",
        ),
        pytest.param(("btcusdt",), [], {"btcusdt": "unknown to the venue"}, id="capitals matter"),
    ],
)
def test_validation_by_the_listing(
    asked: tuple[str, ...], accepted: list[str], refused: dict[str, str]
) -> None:
    assert validate(asked, LISTED) == (accepted, refused)


def test_validation_accepts_halted_and_rejects_unknown_symbols() -> None:
    asked = ("NOPE", "HALTUSDT", "BTCUSDT")
    assert readable(asked, LISTED) == (["HALTUSDT", "BTCUSDT"], {"NOPE": "unknown to the venue"})
    assert readable(asked, None) == (list(asked), {})


def test_validation_table_has_a_line_per_symbol() -> None:
    assert table(("BTCUSDT", "NOPE", "AVERYLONGSYMBOLUSDT"), LISTED).splitlines() == [
        "SYMBOL               STATUS          RESULT",
        "BTCUSDT              TRADING         ok",
        "NOPE                 -               rejected: unknown to the venue",
        "AVERYLONGSYMBOLUSDT  BREAK           not trading: BREAK",
    ]


def test_validation_of_the_recorded_listing(recording: Callable[[str], Path]) -> None:
    listing = msgspec.json.decode(recording("binance-us-exchangeInfo-2021.json").read_bytes())
    listed = {
        each["symbol"]: SymbolInfo(each["status"], each["status"] == "TRADING") for each in listing["symbols"]
    }
    accepted, refused = validate(tuple(listed), listed)
    assert len(accepted) + len(refused) == len(listed) == 121
    assert {"BTCUSD", "BTCUSDT", "ETHUSDT"} <= set(accepted)
    assert refused == {
        each["symbol"]: f"not trading: {each['status']}"
        for each in listing["symbols"]
        if each["status"] != "TRADING"
    }
    assert refused
