"""Mutation tests of the oracle: one-line defects in a copy of the worker, one at a time; each must be detected.

A mutant is a replacement of text, so that it survives when the code around it moves; a test checks that each of them
still applies. Mutants that no session can detect have a reason, and stay in the list.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import marketfeed_consumers
import marketfeed_workers

SOURCES: Final = {
    package.__name__: Path(package.__file__ or "").parent
    for package in (marketfeed_workers, marketfeed_consumers)
}
"""Package -> its folder."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect.

    Attributes:
        name: description; begins with the id of a former defect that it reintroduces, if any.
        file: path below the package.
        old, new: the text that is replaced everywhere in the file, and its replacement.
        survives: reason why no session can detect it; "" where one must.
        seed: first seed, from 1 or 10**12 on, whose session detected it; 0 where a fixed session
            does.
        package: package of the file.
        with_postgres: whether the sessions run over PostgreSQL, for a defect in SQL.
    """

    name: str
    file: str
    old: str
    new: str
    survives: str = ""
    package: str = "marketfeed_workers"
    seed: int = 0
    with_postgres: bool = False


class DoesNotApplyError(Exception):
    """The text that a mutant replaces does not exist any more."""


def mutated(mutant: Mutant) -> str:
    """Return the mutant's file with its defect.

    Raises:
        DoesNotApplyError: the text that it replaces is not in the file.
    """
    text = (SOURCES[mutant.package] / mutant.file).read_text()
    if mutant.old not in text:
        raise DoesNotApplyError(f"{mutant.name}: {mutant.file} has no {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


@dataclass(frozen=True, slots=True)
class SeriesDecision:
    """Result of a mutant: the violated invariant and where; both "" when it survived."""

    mutant: Mutant
    invariant: str
    where: str

    @property
    def is_as_expected(self) -> bool:
        """Return whether it was killed, or has a reason to survive."""
        return bool(self.invariant) or bool(self.mutant.survives)


def battery(seeds: int, package: str, *, with_postgres: bool = False) -> tuple[str, str]:
    """Run the sessions of a mutant; return the first violated invariant and where, "" where all held.

    Args:
        seeds: drawn seeds.
        package: package of the mutant.
        with_postgres: whether the sessions run over PostgreSQL.
    """
    if with_postgres:
        from marketfeed_simtest.consumers.battery import postgres_sessions as sessions
    elif package == marketfeed_consumers.__name__:
        from marketfeed_simtest.consumers.battery import sessions
    else:
        from marketfeed_simtest.battery import sessions

    for where, violations in sessions(seeds):
        for name, text in violations.items():
            return name, f"{where}: {text}"
    return "", ""


@contextmanager
def mutated_package(mutant: Mutant) -> Iterator[dict[str, str]]:
    """Return the environment of processes that import a package with the mutant's defect; without a text: unchanged."""
    with tempfile.TemporaryDirectory(prefix="simtest-mutant-") as folder:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        if mutant.old:
            source = SOURCES[mutant.package]
            copy = Path(folder) / source.name
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / mutant.file).write_text(mutated(mutant))
            environment["PYTHONPATH"] = folder
        yield environment


def decide(mutant: Mutant, seeds: int, timeout_seconds: float = 900.0) -> SeriesDecision:
    """Run the battery in a process with the mutant."""
    with mutated_package(mutant) as environment:
        command = [sys.executable, "-m", "marketfeed_simtest", "battery", "--seeds", str(seeds)]
        command += ["--package", mutant.package, *(["--postgres"] if mutant.with_postgres else [])]
        ran = subprocess.run(  # noqa: S603 - no shell
            command, env=environment, capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
    if ran.returncode == 0:
        return SeriesDecision(mutant, "", "")
    invariant, _, where = ran.stdout.strip().partition("\t")
    return SeriesDecision(mutant, invariant or "harness", where or ran.stderr[-300:])


def as_it_is(package: str, *, with_postgres: bool) -> Mutant:
    """No defect."""
    name = f"{package} as it is{' over PostgreSQL' if with_postgres else ''}"
    return Mutant(name, "", "", "", "it is", package, with_postgres=with_postgres)


def judge_all(
    mutants: Sequence[Mutant], seeds: int, jobs: int, desired: Callable[[Mutant], bool]
) -> Iterator[SeriesDecision]:
    """Yield the results of each unchanged package, which must pass, then of each of its mutants, in order."""
    chosen = list(filter(desired, mutants))
    kinds = dict.fromkeys((mutant.package, mutant.with_postgres) for mutant in chosen)
    whole = [as_it_is(package, with_postgres=with_postgres) for package, with_postgres in kinds]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(partial(decide, seeds=seeds), [*whole, *chosen])
