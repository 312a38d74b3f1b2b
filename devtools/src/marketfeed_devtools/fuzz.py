"""Random responses for the tests of the HTTP clients; for rounds and seeds see `seeds`."""

import random


def mutated(body: bytes, rng: random.Random) -> bytes:
    """Return a mutation of `body`: truncated, corrupted, nested, of another type, or random bytes."""
    how = rng.randrange(9)
    at = rng.randrange(len(body) + 1)
    match how:
        case 0:
            return body[:at]
        case 1:
            return rng.randbytes(rng.randrange(2000))
        case 2:
            return body[:at] + rng.choice((b"[", b'{"a":')) * rng.randrange(1, 200_000)
        case 3:
            return body[:at] + rng.randbytes(rng.randrange(1, 9)) + body[at:]
        case 4:
            words = (
                b"null",
                b"true",
                b"-1",
                b"1e999",
                b'"x"',
                b"[]",
                b"{}",
                b"9" * 400,
                b"0.1",
                b'"\\ud800"',
                b"NaN",
            )
            return _replaced_token(body, rng.choice(words), rng)
        case 5:
            return rng.choice(
                (b"", b"[]", b"{}", b"null", b"[[[]]]", b"[null]", b'"', b"<html></html>", b"\xff" * 50)
            )
        case 6:
            end = min(len(body), at + rng.randrange(1, 200))
            return body[:at] + body[end:]
        case 7:
            end = min(len(body), at + rng.randrange(1, 400))
            return body[:end] + body[at:]
        case _:
            return bytes(each ^ (1 << rng.randrange(8)) if rng.random() < 0.01 else each for each in body)


def _replaced_token(body: bytes, word: bytes, rng: random.Random) -> bytes:
    """Return `body` with the value after one of its colons replaced."""
    colons = [at for at, each in enumerate(body) if each == ord(":")]
    if not colons:
        return word
    start = rng.choice(colons) + 1
    end = min((found for mark in b",}]" if (found := body.find(mark, start)) >= 0), default=len(body))
    return body[:start] + word + body[end:]
