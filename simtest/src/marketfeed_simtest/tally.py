"""Totals of sessions of workers or of consumers."""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

P = TypeVar("P")


class Outcome(Protocol):
    """Results common to both kinds of session."""

    seconds: float
    records: int
    lives: int
    faults: Counter[str]
    reached: Counter[str]
    digest: str
    violations: dict[str, str]


@dataclass(slots=True)
class Failure(Generic[P]):
    """A seed whose session violated an invariant."""

    seed: int
    violations: Mapping[str, str]
    plan: P


@dataclass(slots=True)
class Sums(Generic[P]):
    """Totals common to both kinds of session."""

    sessions: int = 0
    virtual_seconds: float = 0.0
    records: int = 0
    lives: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[Failure[P]] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    def count(self, seed: int, plan: P, outcome: Outcome) -> None:
        """Count a session.

        Args:
            seed: seed of the session.
            plan: plan of the session.
            outcome: result of the session.
        """
        self.sessions += 1
        self.virtual_seconds += outcome.seconds
        self.records += outcome.records
        self.lives += outcome.lives
        self.faults += outcome.faults
        self.reached += outcome.reached
        self.digests[seed] = outcome.digest
        if outcome.violations:
            self.failures.append(Failure(seed, outcome.violations, plan))

    def digest(self) -> str:
        """Return the digest of all sessions: equal seeds have equal ones."""
        whole = "".join(self.digests[seed] for seed in sorted(self.digests))
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def verdict(self) -> list[str]:
        """Return the number of violations of each invariant, as lines."""
        broken = Counter(name for failure in self.failures for name in failure.violations)
        lines = [f"{count:6,} {name}" for name, count in broken.most_common()]
        held = "every invariant held"
        return [*lines, held if not broken else f"{len(self.failures)} sessions violated an invariant"]


def logged_events(files: Iterable[Path], methods: tuple[str, ...]) -> set[str]:
    """Return the literal events that modules log by `methods`."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in methods
            ):
                texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
                found.update(text for text in texts[:1] if isinstance(text, str))
    return found
