"""The plain definition of each table, compared with every transaction that the database commits.

No code of the consumer is used: published records are reported by the publisher, Kafka's content by the model,
and stored rows are read from the database.
"""

from collections import Counter, defaultdict
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from marketfeed_simtest.clock import Clock
from marketfeed_simtest.consumers.meaning import Content, Meaning, Symbol
from marketfeed_simtest.consumers.retention_judge import RetentionJudge, time_of
from marketfeed_simtest.consumers.store import KEYS, Changes, Key, Row
from marketfeed_simtest.consumers.topics import Brokers, Entry, Partition

INVARIANTS: Final = {
    "offset_passed": "no stored offset passes a record that is neither stored nor a dead letter",
    "read_on": "a partition whose log was lost below the stored offset is not read from it until reset-offsets",
    "false_refusal": "no partition is refused whose log was not lost",
    "lost": "after the last fault, every record in Kafka is stored",
    "invented": "every row was published, with the published content",
    "changed": "no stored trade or quote changes",
    "resurrected": "a trade that retention has deleted is not stored again",
    "deleted_young": "only retention deletes, nothing younger than its limit and no newest row of a symbol",
    "retention_left": "rows that were old when retention began are deleted when it has ended",
    "false_dead_letter": "no record is a dead letter that could be stored",
    "false_conflict": "every conflict is between a stored row and a message of other content",
    "conflict_lost": "each message that contradicts a stored row is counted, once",
    "candles": "candles are the aggregate of all trades that were ever stored",
    "missing": "missing_trades are the ids between those that were ever stored",
    "marks": "high_water_marks span and count what was ever stored",
    "gaps": "trade_gaps has the newest record of each gap",
    "tops": "top_of_book is the newest quote of each symbol",
    "false_fence": "no consumer is fenced that still owns its partitions",
    "audit": "the audit reports exactly the missing ids, and complete only where nothing is missing",
    "hint_passed": "no offset is committed to Kafka that is not stored",
    "not_complete": "within two minutes after the last fault all is stored",
    "not_refused": "within a minute after the last fault a lost log is refused",
    "crash": "processes end only by SIGTERM, fencing, a refused log, or an unreachable Kafka at start",
    "no_stop": "a process stops in time after SIGTERM",
}
"""Name -> invariant."""

KNOWING_SECONDS: Final = 15.0
"""Tolerance of a lease whose request preceded the loss of a log."""


@dataclass(slots=True)
class Standing:
    """One group's partition.

    Attributes:
        begins: lowest offset that must be stored.
        changed_at: time at which the log was last truncated, expired or created again.
        lacks: whether that removed records written since its creation, or since `reset-offsets`.
        lost_at: time since which records below the stored offset are missing or different.
        is_another: whether the topic is another one.
        claimed_at: time of the current epoch's assignment.
        peak: highest offset ever stored.
    """

    begins: int = 0
    changed_at: float | None = None
    lacks: bool = False
    lost_at: float | None = None
    is_another: bool = False
    claimed_at: float = 0.0
    peak: int = 0


class Oracle:
    """Checks a session.

    Attributes:
        violations: invariant -> its first violation.
        tables: current rows.
        ever: "trades" and "book_tickers" -> key -> the row as first stored.
        resets: number of offset resets.
    """

    def __init__(self, clock: Clock, brokers: Brokers, groups: int) -> None:
        self.violations: dict[str, str] = {}
        self.tables: dict[str, dict[Key, Row]] = {name: {} for name in KEYS}
        self.ever: dict[str, dict[Key, Row]] = {"trades": {}, "book_tickers": {}}
        self.retention = RetentionJudge(self.tables, self.ever, self.violate)
        self.resets = 0
        self.standings: defaultdict[Key, Standing] = defaultdict(Standing)
        self.meanings: dict[int, Meaning] = {}
        self.changed_topics: set[str] = set()
        self._clock = clock
        self._brokers = brokers
        self._groups = groups
        self._published: defaultdict[tuple[str, Symbol, int], list[Content]] = defaultdict(list)
        self._whole: defaultdict[tuple[str, Symbol, int], list[Content]] = defaultdict(list)
        self._letters: dict[tuple[str, int, int], set[tuple[bytes, bytes | None]]] = defaultdict(set)
        self._letters_stored: set[tuple[str, int, int]] = set()
        self._gone: set[tuple[str, Key]] = set()
        self._written: dict[tuple[str, int, int], tuple[Entry, Meaning]] = {}
        self._claims: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)

    def violate(self, name: str, text: str) -> None:
        """Record a violation of an invariant."""
        self.violations.setdefault(name, f"{self._clock.seconds:.3f} s: {text}")

    # --- events ---

    def published(self, entry: Entry, meaning: Meaning) -> None:
        """Add a visible record."""
        self.meanings[entry.number] = meaning
        self._written[entry.topic, entry.partition, entry.offset] = (entry, meaning)
        if meaning.kind in ("trade", "quote") and meaning.id is not None:
            self._published[meaning.kind, meaning.symbol, meaning.id].append(meaning.content)
            self._whole[meaning.kind, meaning.symbol, meaning.id].append(meaning.content + meaning.others)
        if meaning.kind == "letter":
            self._letters[entry.topic, entry.partition, entry.offset].add((entry.key, entry.value))

    def log_changed(self, topic: str, lacking: Container[int] = (), *, is_new: bool = False) -> None:
        """Handle truncation, expiry or a new creation of a topic's logs.

        Args:
            lacking: partitions that have lost records.
        """
        self.changed_topics.add(topic)
        for (group, name, number), row in self.tables["consumer_offsets"].items():
            if name == topic:
                standing = self.standings[group, name, number]
                standing.changed_at = self._clock.seconds
                standing.lacks = standing.lacks or is_new or number in lacking
                if is_new or not self._is_where_it_was(row):
                    standing.lost_at, standing.is_another = self._clock.seconds, is_new or standing.is_another

    def _is_where_it_was(self, row: Row) -> bool:
        log = self._brokers.log((row["topic"], row["partition"]))
        epoch = row["leader_epoch"]
        return (
            log is not None
            and log.low <= row["next_offset"] <= log.end
            and (epoch < 0 or row["next_offset"] <= log.end_of(epoch))
        )

    def hinted(self, group: str, partition: Partition, offset: int) -> None:
        """Check an offset committed to Kafka.

        Args:
            group: consumer group.
            partition: topic and partition.
            offset: committed offset.
        """
        if offset > self.standings[group, *partition].peak:
            self.violate(
                "hint_passed", f"{partition} at {offset}, stored {self.standings[group, *partition].peak}"
            )

    def reset(self, group: str, topic: str) -> None:
        """Handle a reset of offsets."""
        self.resets += 1
        for (own, name, _), standing in self.standings.items():
            if (own, name) == (group, topic):
                self._begin_again(standing)

    def _begin_again(self, standing: Standing) -> None:
        """Start the stored records of a partition again; the request to Kafka may have been some time before."""
        changed_at = standing.changed_at
        standing.lacks = changed_at is not None and self._clock.seconds - changed_at < KNOWING_SECONDS
        standing.lost_at, standing.changed_at, standing.is_another = None, None, False

    def ended(self, group: str, text: str, error: BaseException | None, *, kafka_was_away: bool) -> None:
        """Check a process that has ended.

        Args:
            group: consumer group.
            text: name of the process.
            error: error that it ended with, if any.
            kafka_was_away: whether Kafka was unreachable at its start.
        """
        name = type(error).__name__
        if name == "Fenced" and all(
            self.tables["consumer_offsets"][key]["owner"] == text for key in self._claims[group, text]
        ):
            self.violate("false_fence", f"{text}: {error}")
        if name == "LogLost":
            if not self.changed_topics:
                self.violate("false_refusal", f"{text}: {error}")
        elif name not in ("Fenced", "NoneType") and not (name == "StartupError" and kafka_was_away):
            self.violate("crash", f"{text} ended in {name}: {error}")

    def committed(self, changes: Changes) -> None:
        """Check a committed transaction."""
        old = {(table, key): self.tables[table].get(key) for table, key in changes}
        for (table, key), row in changes.items():
            if row is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = row
        for (table, key), row in changes.items():
            self.retention.changed(table, key, old[table, key], row)
            if table in self.ever:
                self._row(table, key, old[table, key], row)
            elif table == "dead_letters" and row is not None and old[table, key] is None:
                self._letter(row)
            elif table in ("trade_conflicts", "quote_conflicts") and row is not None:
                self._conflict(table, key, row)
        for (table, key), row in changes.items():
            if table == "consumer_offsets" and row is not None:
                self._offsets(key, old[table, key], row)

    # --- rows ---

    def _row(self, table: str, key: Key, old: Row | None, row: Row | None) -> None:
        if row is None:
            self._gone.add((table, key))
            return
        whole = self._columns(table, row)
        if old is not None and self._columns(table, old) != whole:
            self.violate("changed", f"{table} {key}: {old} became {row}")
        if (table, key) in self._gone and table == "trades":
            self.violate("resurrected", f"{table} {key}")
        kind = "trade" if table == "trades" else "quote"
        published = self._whole[kind, key[:3], key[3]]
        topic_changed = table in self.changed_topics
        expected = published if topic_changed or (table, key) in self._gone else published[:1]
        if whole not in expected:
            self.violate("invented", f"{table} {key} is {whole}; published was {published}")
        self.ever[table].setdefault(key, row)

    @staticmethod
    def _content(table: str, row: Row) -> Content:
        if table == "trades":
            return row["price"], row["qty"], row["buyer_is_maker"], row["trade_time_us"]
        return row["bid_price"], row["bid_qty"], row["ask_price"], row["ask_qty"]

    @classmethod
    def _columns(cls, table: str, row: Row) -> Content:
        """Return a row without its key."""
        others = (
            row["event_time_us"],
            row["received_time_us"],
            *((row["origin"],) if table == "trades" else ()),
        )
        return cls._content(table, row) + others

    def _letter(self, row: Row) -> None:
        place = (row["topic"], row["partition"], row["kafka_offset"])
        self._letters_stored.add(place)
        found = bytes(row["message_key"] or b""), None if row["value"] is None else bytes(row["value"])
        if found not in self._letters.get(place, ()):
            self.violate("false_dead_letter", f"{place}: {row['reason']}")

    def _conflict(self, table: str, key: Key, row: Row) -> None:
        of, kind = ("trades", "trade") if table == "trade_conflicts" else ("book_tickers", "quote")
        content = self._content(of, row)
        held = self.ever[of].get(key[:4])
        published = self._published[kind, key[:3], key[3]]
        if held is None or content not in published or self._content(of, held) == content:
            self.violate("false_conflict", f"{table} {row}; stored {held}")

    # --- offsets ---

    def is_settled(self, entry: Entry, meaning: Meaning) -> bool:
        """Return whether a record had its expected effect."""
        if meaning.kind == "letter":
            return (entry.topic, entry.partition, entry.offset) in self._letters_stored
        if meaning.kind == "gap":
            row = self.tables["trade_gaps"].get((*meaning.symbol, meaning.id))
            return row is not None and row["updated_time_us"] >= meaning.content[0]
        table = "trades" if meaning.kind == "trade" else "book_tickers"
        key = (*meaning.symbol, meaning.id)
        return key in self.ever[table] or (
            table == "book_tickers" and meaning.time_us < self.retention.limit(table)
        )

    def _unsettled(self, partition: Partition, first: int, end: int) -> list[tuple[Entry, Meaning]]:
        log = self._brokers.log(partition)
        found = [(one, self.meanings.get(one.number)) for one in (log.between(first, end) if log else ())]
        return [
            (entry, meaning)
            for entry, meaning in found
            if meaning is not None and not self.is_settled(entry, meaning)
        ]

    def _offsets(self, key: Key, old: Row | None, row: Row) -> None:
        standing, now = self.standings[key], self._clock.seconds
        if old is None or old["epoch"] != row["epoch"]:
            standing.claimed_at = now
            self._claims[key[0], row["owner"]].add(key)
        standing.peak = max(standing.peak, row["next_offset"])
        if row["refusal"] and not (old and old["refusal"]) and not standing.lacks:
            self.violate("false_refusal", f"{key}: {row['refusal']}")
        if old is None:
            standing.begins = row["next_offset"]
            return
        if row["next_offset"] < old["next_offset"] or row["owner"] == "reset-offsets":
            standing.begins = self._earliest(key, standing, row)
            self._begin_again(standing)
            return
        if row["next_offset"] > old["next_offset"]:
            self._advanced(key, standing, old, row)

    def _was_read(self, old: Row, row: Row) -> bool:
        """Return whether records deleted by Kafka's retention were read before, and are stored."""
        passed = (
            self._written.get((row["topic"], row["partition"], offset))
            for offset in range(old["next_offset"], row["next_offset"])
        )
        settled = (self.is_settled(*one) for one in passed if one is not None)
        return self._is_where_it_was(row) and all(settled)

    def _earliest(self, key: Key, standing: Standing, row: Row) -> int:
        """Return the offsets after `reset-offsets --to earliest`; its request may have preceded a change of the log."""
        log, changed_at = self._brokers.log((key[1], key[2])), standing.changed_at
        has_changed = changed_at is not None and self._clock.seconds - changed_at < KNOWING_SECONDS
        return int(row["next_offset"]) if log is None or has_changed else log.low

    def _advanced(self, key: Key, standing: Standing, old: Row, row: Row) -> None:
        if old["refusal"]:
            self.violate("read_on", f"{key} {old['next_offset']} -> {row['next_offset']}: it is refused")
        if standing.lost_at is not None:
            if standing.claimed_at > standing.lost_at + KNOWING_SECONDS:
                self.violate("read_on", f"{key}: lost at {standing.lost_at:.3f} s; {row['owner']} stores")
            elif not standing.is_another and self._was_read(old, row):
                standing.lost_at = None
            return
        if left := self._unsettled((key[1], key[2]), old["next_offset"], row["next_offset"]):
            changed_at = standing.changed_at
            if changed_at is not None and standing.claimed_at <= changed_at + KNOWING_SECONDS:
                standing.lost_at = changed_at
                return
            self.violate("offset_passed", f"{key} {old['next_offset']} -> {row['next_offset']}: {left[0]}")
        elif standing.changed_at is not None and not self._is_where_it_was(row):
            standing.lost_at = standing.changed_at

    # --- at the end ---

    def unfinished(self) -> str:
        """Return a description of the records not stored; "" when all are."""
        rows = self.tables["consumer_offsets"]
        for group in {f"g{number}" for number in range(self._groups)}:
            for name, topic in self._brokers.topics.items():
                for number, log in enumerate(topic.logs):
                    row = rows.get((group, name, number))
                    if row is None or row["next_offset"] != log.end or row["refusal"]:
                        return f"{group} {name}[{number}] ends at {log.end}, stored is {row}"
        return ""

    def not_refused(self) -> str:
        """Return a partition whose log is lost and not refused."""
        for key, standing in self.standings.items():
            row = self.tables["consumer_offsets"].get(key)
            if standing.lost_at is not None and row is not None and not row["refusal"]:
                return f"{key}, lost at {standing.lost_at:.3f} s"
        return ""

    def judge_end(self) -> None:
        """Compare all tables with their definitions, once all is stored."""
        for (_, name, number), standing in self.standings.items():
            log = self._brokers.log((name, number))
            if log is not None and (left := self._unsettled((name, number), standing.begins, log.end)):
                self.violate("lost", f"{left[0]} and {len(left) - 1} more")
        from marketfeed_simtest.consumers.definitions import judge_tables

        judge_tables(self)

    def repeats(self, table: str) -> dict[Key, Counter[Content]]:
        """Return key -> contents of visible records that differ from the row, which must be conflicts."""
        kind = "trade" if table == "trades" else "quote"
        found: dict[Key, Counter[Content]] = {}
        for key, row in self.ever[table].items():
            if (table, key) in self._gone or time_of(table, row) < self.retention.limit(table):
                continue
            held = self._content(table, row)
            others = Counter(one for one in self._published[kind, key[:3], key[3]] if one != held)
            if others:
                found[key] = others
        return found

    def is_counted(self, table: str) -> bool:
        """Return whether each message was read once, so that expected counts are exact."""
        return (
            not self.resets
            and not self.changed_topics
            and self._groups == 1
            and table not in self.changed_topics
        )
