"""WebSocket requests and replies, as documented by the venues."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed_simulator.protocol import Session, streams_of
from marketfeed_simulator.venue import BINANCE, BINANCE_US


def ask(session: Session, **fields: Any) -> Any:
    return json.loads(session.handle(json.dumps(fields)).reply)


def test_subscriptions_are_listed_in_order() -> None:
    session = Session(BINANCE_US, combined=True, streams=["a@trade"])
    outcome = session.handle(
        '{"method":"SUBSCRIBE","params":["b@trade","a@trade","c@trade","b@trade"],"id":1}'
    )
    assert json.loads(outcome.reply) == {"result": None, "id": 1}
    assert outcome.added == ("b@trade", "c@trade")
    assert ask(session, method="LIST_SUBSCRIPTIONS", id=2) == {
        "result": ["a@trade", "b@trade", "c@trade"],
        "id": 2,
    }
    outcome = session.handle('{"method":"UNSUBSCRIBE","params":["a@trade","never@trade"],"id":3}')
    assert json.loads(outcome.reply) == {"result": None, "id": 3}
    assert outcome.removed == ("a@trade",)
    assert ask(session, method="LIST_SUBSCRIPTIONS", id=4)["result"] == ["b@trade", "c@trade"]


def test_property_combined_is_read_and_set() -> None:
    session = Session(BINANCE_US, combined=False)
    assert ask(session, method="GET_PROPERTY", params=["combined"], id=1) == {"result": False, "id": 1}
    assert ask(session, method="SET_PROPERTY", params=["combined", True], id=2) == {"result": None, "id": 2}
    assert ask(session, method="GET_PROPERTY", params=["combined"], id=3) == {"result": True, "id": 3}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('{"method":', 3, "Invalid JSON: expected value at line 1 column"),
        ("", 3, "Invalid JSON: expected value at line 1 column 1"),
        ("[" * 100_000, 3, "Invalid JSON"),
        ("[]", 2, "missing field `method`"),
        ('{"id":1}', 2, "missing field `method`"),
        (
            '{"method":"SUBSCRIB","params":["a"],"id":1}',
            2,
            "unknown variant `SUBSCRIB`, expected one of `SUBSCRIBE`",
        ),
        ('{"method":["SUBSCRIBE"],"params":["a"],"id":1}', 2, "unknown variant"),
        ('{"method":"SUBSCRIBE","params":["a"]}', 2, "request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["a"],"id":-1}', 2, "request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["a"],"id":"x"}', 2, "request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["a"],"id":null}', 2, "request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["a"],"id":true}', 2, "request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":"a","id":1}', 2, "Invalid request"),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2, "Invalid request"),
        ('{"method":"SUBSCRIBE","id":1}', 2, "Invalid request"),
        ('{"method":"SUBSCRIBE","params":["a"],"id":1,"more":1}', 2, "too many parameters"),
        ('{"method":"LIST_SUBSCRIPTIONS","params":["a"],"id":1}', 2, "too many parameters"),
        ('{"method":"SET_PROPERTY","params":[1,true],"id":1}', 2, "property name must be a string"),
        ('{"method":"SET_PROPERTY","params":[],"id":1}', 2, "property name must be a string"),
        ('{"method":"SET_PROPERTY","params":["combined",true,1],"id":1}', 2, "too many parameters"),
        (
            '{"method":"SET_PROPERTY","params":["combined","true"],"id":1}',
            1,
            "Invalid value type: expected Boolean",
        ),
        ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 1, "Invalid value type: expected Boolean"),
        ('{"method":"SET_PROPERTY","params":["other",true],"id":1}', 0, "Unknown property"),
        ('{"method":"GET_PROPERTY","params":["other"],"id":1}', 0, "Unknown property"),
    ],
)
def test_request_errors_are_as_documented(text: str, code: int, message: str) -> None:
    session = Session(BINANCE_US, combined=True, streams=["a@trade"])
    outcome = session.handle(text)
    reply = json.loads(outcome.reply)
    assert reply["code"] == code
    assert message in reply["msg"]
    assert list(session.streams) == ["a@trade"]
    assert session.combined is True


@pytest.mark.parametrize("number", [-5, "abc-1", None, 2**63 - 1])
def test_request_id_types_of_the_other_venue(number: object) -> None:
    session = Session(BINANCE, combined=True)
    assert ask(session, method="LIST_SUBSCRIPTIONS", id=number) == {"result": [], "id": number}


@pytest.mark.parametrize("number", ["x" * 37, 2**63, 1.5, {}])
def test_request_id_bounds_of_the_other_venue(number: object) -> None:
    assert ask(Session(BINANCE, combined=True), method="LIST_SUBSCRIPTIONS", id=number)["code"] == 2


def test_subscription_limit_of_1024_streams() -> None:
    session = Session(BINANCE_US, combined=True, streams=[f"s{n}@trade" for n in range(1000)])
    assert ask(session, method="SUBSCRIBE", params=[f"t{n}@trade" for n in range(25)], id=1)["code"] == 4
    assert len(session.streams) == 1000
    assert ask(session, method="SUBSCRIBE", params=[f"t{n}@trade" for n in range(24)], id=1)["result"] is None
    assert ask(session, method="SUBSCRIBE", params=["s0@trade"], id=2)["result"] is None


@given(
    st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_request_always_has_a_reply(text: str) -> None:
    assert json.loads(Session(BINANCE_US, combined=True).handle(text).reply)


def test_path_stream_names_are_distinct() -> None:
    assert streams_of("a@trade/b@trade//a@trade/") == ["a@trade", "b@trade"]
    assert streams_of("") == []
