"""Recordings: errors of invalid ones, and frames byte for byte."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from marketfeed_simulator.frames import COMBINED, MICROSECONDS
from marketfeed_simulator.recording import RecordingError, Replay, parse, read, scan

GOOD = (
    b'1700000000000000000 {"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":5,"p":"1.5",'
    b'"q":"2","T":1700000000001,"m":true,"M":true}}\n'
)
QUOTE = (
    b'1700000000002000000 {"stream":"btcusdt@bookTicker","data":{"u":9,"s":"BTCUSDT","b":"1","B":"1",'
    b'"a":"2","A":"1"}}\n'
)
DEPTH = (
    b'1700000000003000000 {"stream": "btcusdt@depth@100ms", "data": {"e": "depthUpdate", "s":"BTCUSDT"}}\n'
)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"not a recording\n", "time in nanoseconds"),
        (b"\n", "time in nanoseconds"),
        (b"1700000000000000000\n", "truncated"),
        (
            b'1700000000000000000 {"stream":"btcusdt@trade","data":{"s":"BTCUSDT"}}\n',
            "missing required field `t`",
        ),
        (b'1700000000000000000 {"stream":"btcusdt@trade","da\n', "truncated"),
        (
            b'1700000000000000000 {"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT","u":"9"}}\n',
            "Expected `int`",
        ),
        (b'1700000000000000000 {"result":null,"id":1}\n', "missing required field `stream`"),
        (b"1700000000000000000 \xff\xfe\n", ""),
    ],
)
def test_recording_error_has_the_line_number(tmp_path: Path, broken: bytes, words: str) -> None:
    path = tmp_path / "r.frames"
    path.write_bytes(GOOD + QUOTE + broken + GOOD)
    with pytest.raises(RecordingError, match=r"r\.frames, line 3: ") as raised:
        scan(path)
    assert words in str(raised.value)


def test_recording_missing_empty_or_truncated(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nowhere cannot be read: No such file"):
        scan(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(RecordingError, match="empty holds no frames"):
        scan(tmp_path / "empty")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(GOOD * 1000)[:-20])
    with pytest.raises(RecordingError, match=r"cut\.gz is damaged after line \d+"):
        scan(tmp_path / "cut.gz")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_recording_plain_and_gzip(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "r.frames"
    path.write_bytes(pack(GOOD + QUOTE + DEPTH))
    summary = scan(path)
    assert summary.frames == 3
    assert summary.streams == {"btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"}
    assert summary.symbols == ("BTCUSDT",)
    assert (summary.start_us, summary.end_us) == (1_700_000_000_000_000, 1_700_000_000_003_000)


@pytest.mark.parametrize("line", [GOOD, QUOTE, DEPTH])
def test_recording_frame_is_byte_for_byte(line: bytes) -> None:
    frame = parse(line)
    text = line.partition(b" ")[2].rstrip()
    assert frame.text(COMBINED) == text
    assert json.loads(frame.text(0)) == json.loads(text)["data"]
    assert frame.text(0) in text


def test_frame_has_a_websocket_header() -> None:
    frame = parse(GOOD)
    text = frame.text(COMBINED)
    assert frame.wire(COMBINED) == b"\x81\x7e" + len(text).to_bytes(2, "big") + text
    raw = frame.text(0)
    assert frame.wire(0) == bytes((0x81, len(raw))) + raw
    assert frame.wire(COMBINED).endswith(text)


def test_recording_trade_is_in_rest() -> None:
    trade = parse(GOOD).trade
    assert trade is not None
    assert (trade.id, trade.price, trade.qty, trade.time_us) == (5, "1.5", "2", 1_700_000_000_001_000)
    assert json.loads(parse(GOOD).text(MICROSECONDS))["T"] == 1_700_000_000_001_000


def test_recording_stream_name_in_the_payload_is_ignored() -> None:
    frame = parse(
        b'1700000000003000000 {"stream":"btcusdt@depth","data":{"note":"x@trade","s":"a","t":1,"p":"1",'
        b'"q":"1","T":1,"m":true}}'
    )
    assert frame.kind == "other"


def test_replay_pulls_only_due_frames(tmp_path: Path) -> None:
    path = tmp_path / "r.frames"
    path.write_bytes(GOOD + QUOTE + DEPTH)
    replay = Replay(path, scan(path))
    assert replay.next_us() == replay.start_us == 1_700_000_000_000_000
    assert [frame.kind for frame in replay.pull(1_700_000_000_002_000, 10)] == ["trade", "quote"]
    assert replay.pull(1_700_000_000_002_999, 10) == []
    assert not replay.finished
    assert [frame.kind for frame in replay.pull(None, 10)] == ["other"]
    assert replay.finished
    assert replay.pull(None, 10) == []


def test_recording_of_two_symbols_is_read_completely(recorded: Path) -> None:
    summary = scan(recorded)
    assert summary.frames == 98_371
    assert sum(frame.kind == "trade" for frame in read(recorded)) == 18_556
