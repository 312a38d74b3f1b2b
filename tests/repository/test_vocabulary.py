"""The words of docs/design/vocabulary.md: phrases that it replaces are found in no file."""

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".tpl", ".txt", ".sh", ".json", ".service", ".example"}

# Phrase (a regular expression over lower-case words; `_` and camel case separate words as spaces do) and replacement.
# Words that are legitimate in an API or in plain English (kind, progress, memory, claim, verdict, answer) are allowed.
REFUSED = {
    # Trade ids and backfill
    r"repair desk|repair(s|ed|ing)?|unrepaired": "backfill, backfilled; drift corrected",
    r"holes?|missing spans?|(a|the|each|every|long|first) jumps?(?! to)": "gap",
    r"words? (on|of|about) (a|the|each|every|this) gap": "gap record",
    r"passe?[sd]? over|passing over": "skipped, ignored",
    r"(came|comes?|coming) again": "duplicate, received again",
    r"held back|holds? back|holding back": "buffered in the reorder buffer",
    r"goe?s? on without|went on without": "flush",
    r"what kafka (remembers|knows)|kafka has word": "checkpoint",
    # Acknowledgements
    r"(not )?answered for|answers? for": "acknowledged, in-flight",
    r"what waits": "in-flight messages, backlog",
    r"tells?|told|telling": "report, return, log, show",
    r"remember(s|ed|ing)?": "store, keep, cache",
    r"hand(s|ed|ing)? over": "pass, produce, deliver",
    # Consumer groups and ownership
    r"(takes?|taken|took|taking) over": "assign, acquire, adopt",
    r"(lets?|letting) go": "revoked, released",
    r"rivals?": "fenced by a newer epoch; other owner",
    # Storing
    r"distrust(s|ed|ing|ful)?|doubtful|doubts?": "verify rows; unverified",
    r"offenders?": "poison message",
    r"careful(ly)?": "isolate, quarantine",
    r"absorb(s|ed|ing)?": "merge into the stored ranges, apply",
    r"what is known to be stored": "stored ranges",
    r"takes nothing|take nothing|storing goes on|taking nothing": "writes paused, writes resumed",
    # Retries and time
    r"goe?s on trying|go on trying|patience": "retry, deadline, timeout",
    r"goe?s on|going on|went on|go on": "continue, resume",
    r"anew": "again, new",
    r"under way": "in progress, pending",
    r"left alone|be left alone": "rate limited, banned until; unchanged",
    r"for ever": "forever, without limit",
    # Streams and connections
    r"mute(s|d)?|silent streams?": "stalled stream, idle stream",
    r"pulses?": "inter-arrival estimator",
    r"asking for life|asks? for life|beats?": "keepalive, tick, interval",
    r"renewals? of (a|the|each|every) (connection|session|socket)s?|(connection|session) renewals?": "rotation",
    # Symbols
    r"rosters?": "assignment",
    r"what is asked for": "assignment, desired",
    # Kubernetes
    r"(is|are|was|were) to be": "desired, must be, will be",
    r"puts? right|putting right": "drift corrected, corrected",
    r"brings?|brought|bringing": "creates, installs, includes, causes",
    r"stopped leading|stops leading": "leader lease lost",
    r"kinds? of (another operator|other operators)": "CRD of another operator",
    r"(the|its) kind market ?feed": "the CRD",
    r"wants?|wanted|wanting": "desired, requested, expected",
    # Fixes
    r"mend(s|ed|ing)?": "fix",
    r"unmended": "unfixed",
    # On-call wording
    r"not stored yet|stored up to|stored already": "consumer lag, committed offset, duplicates skipped",
    r"the way of (the|a) (data|trade|message)": "pipeline, data flow",
    r"what became of (it|them|the)": "gaps by resolution, result",
    r"all of it works": "no rollout in progress, ready",
    r"is everything in the database|what (the )?services tell": "verify completeness, show status",
    # Things that speak
    r"(kafka|broker|brokers|venue|venues|rest|database|postgresql|server|cluster|kubernetes|operator|worker|workers|consumer|"
    r"consumers|helm|prometheus|client|librdkafka|library|connection|stream|topic|checkpoint|record) "
    r"(says?|said|asks|asked us|knows|knew|answers|answered|speaks)": "returns, reports, sends, has, requests",
}

# Whole files that are outside: why.
FILES = {
    "docs/design/vocabulary.md": "it lists the phrases",
    "tests/repository/test_vocabulary.py": "so does this",
    "uv.lock": "names of packages",
}

# (beginning of the path, text of the line): reason. Both are matched literally.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("tests/e2e/kind/kind_node_image.py", ".wants/"): "folders of systemd",
    ("tests/e2e/kind/files/pod-masquerade.service", "WantedBy="): "a directive of systemd",
    ("CHANGELOG.md", "`partition taken over` → `partition assigned`"): "old names of renamed events",
    ("CHANGELOG.md", "`trades held back…` →"): "an old name of a renamed event",
    ("CHANGELOG.md", "marketfeed_operator_drift_repaired_total"): "the old name of a renamed metric",
    ("CHANGELOG.md", "`repaired` → `backfilled`"): "old names of renamed keys",
    ("docs/reliability.md", "| 5: mute |"): "the report of a run, whose journey had that name",
    ("docs/reliability.md", "stored without a repair"): "the same report",
}

PHRASES = re.compile(r"\b(?:" + "|".join(f"(?:{phrase})" for phrase in REFUSED) + r")\b")
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Line breaks with the marks of a comment, emphasis and punctuation within identifiers are one space.
BETWEEN = re.compile(r"[\s_#`*\"'-]")


def words(text: str) -> str:
    """Return `text` in lower case, of the same length but for camel case, with one space for each separator."""
    return BETWEEN.sub(" ", CAMEL.sub("\x00", text)).replace("\x00", " ").lower()


def found_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, phrase and replacement of each refused phrase in `text`."""
    lines = text.splitlines()
    starts: list[int] = []
    pieces: list[str] = []
    length = 0
    for line in lines:
        piece = re.sub(r" +", " ", words(line)).strip()
        starts.append(length)
        pieces.append(piece)
        length += len(piece) + 1
    joined = " ".join(pieces)
    number = 0
    for match in PHRASES.finditer(joined):
        while number + 1 < len(starts) and starts[number + 1] <= match.start():
            number += 1
        yield number + 1, match.group(), replacement(match.group())


@functools.cache
def replacement(phrase: str) -> str:
    """Return what the page uses in place of `phrase`."""
    return next(use for refused, use in REFUSED.items() if re.fullmatch(refused, phrase))


def excepted(file: str, line: str) -> bool:
    """Return whether an exception covers `line` of `file`."""
    return any(file.startswith(where) and text in line for where, text in EXCEPTIONS)


def tracked() -> list[str]:
    """Return the text files of the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: its files cannot be listed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        name
        for name in listed.stdout.split("\0")
        if name
        and name not in FILES
        and (ROOT / name).is_file()
        and (Path(name).suffix in SUFFIXES or Path(name).name in ("Makefile", "Dockerfile", "run", ".env"))
    ]


def refused_in(files: list[str]) -> Iterator[str]:
    """Yield a line for each refused phrase in the names and texts of `files`."""
    for file in files:
        for _, phrase, use in found_in(file):
            yield f"{file}: name of the file: {phrase!r}, use: {use}"
        text = (ROOT / file).read_text()
        lines = text.splitlines()
        for number, phrase, use in found_in(text):
            if not excepted(file, lines[number - 1]):
                yield f"{file}:{number}: {phrase!r}, use: {use}"


def test_vocabulary_is_followed() -> None:
    assert list(refused_in(tracked())) == []


def test_vocabulary_exceptions_are_needed() -> None:
    assert [reason for reason in (*FILES.values(), *EXCEPTIONS.values()) if not reason.strip()] == []
    unneeded = [
        (where, text)
        for where, text in EXCEPTIONS
        if not any(
            text in line
            for file in tracked()
            if file.startswith(where)
            for line in (ROOT / file).read_text().splitlines()
        )
    ]
    assert unneeded == []


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("def test_a_gap_is_told() -> None:", "told"),
        ("class RepairDesk:", "repair desk"),
        ("# the trades are held\n    # back until", "held back"),
        ("the writer takes\nnothing", "takes nothing"),
        ("`distrust_rows`", "distrust"),
    ],
)
def test_vocabulary_finds_identifiers_and_broken_lines(text: str, phrase: str) -> None:
    assert [found for _, found, _ in found_in(text)] == [phrase]


def test_vocabulary_lets_plain_words_pass() -> None:
    plain = (
        "a claim, the progress of a rollout, memory, a kind of object, holders, storytelling, unremembered"
    )
    assert list(found_in(plain)) == []


def test_vocabulary_reports_the_line() -> None:
    assert [line for line, _, _ in found_in("a\nb\nthe broker\nis mute\n")] == [4]


if __name__ == "__main__":  # python tests/repository/test_vocabulary.py workers consumers
    import sys

    for each in refused_in(
        [file for file in tracked() if not sys.argv[1:] or file.startswith(tuple(sys.argv[1:]))]
    ):
        print(each)
