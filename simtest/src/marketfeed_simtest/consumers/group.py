"""Model of the group coordinator: assignments, and revocations before them (cooperative-sticky)."""

from typing import Final, Protocol

from marketfeed_simtest.consumers.tasks import Tasks
from marketfeed_simtest.consumers.topics import Brokers, Partition

SESSION_SECONDS: Final = 6.0
"""KAFKA_SESSION_TIMEOUT_MS of the consumers in these sessions, in seconds."""


class Member(Protocol):
    """A client as a group member."""

    topics: tuple[str, ...]
    owned: set[Partition]
    is_lost: bool

    def wake(self) -> None:
        """Wake the member: there is work for it."""


class Group:
    """Assigns the partitions of the topics to the members.

    Attributes:
        rebalances: number of rebalances.
    """

    def __init__(self, tasks: Tasks, brokers: Brokers) -> None:
        self.members: list[Member] = []
        self.rebalances = 0
        self._tasks = tasks
        self._brokers = brokers
        self._targets: dict[int, set[Partition]] = {}
        self._begun_at = 0.0
        self._names: set[str] = set()
        brokers.on_change.append(self._look_at_topics)

    def join(self, member: Member) -> None:
        """Add a member."""
        self.members.append(member)
        self.rebalance()

    def leave(self, member: Member) -> None:
        """Remove a member that has left or timed out."""
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def lose(self, member: Member) -> None:
        """Remove a member that timed out; it will detect that, and rejoin."""
        if member in self.members:
            member.is_lost = True
            self.leave(member)
            member.wake()

    def rebalance(self, after_seconds: float = 0.3) -> None:
        """Schedule a rebalance."""
        self._tasks.call_in(after_seconds, self._assign)

    def to_revoke(self, member: Member) -> set[Partition]:
        """Return the partitions that a member has and must give back."""
        return member.owned - self._targets.get(id(member), member.owned)

    def to_assign(self, member: Member) -> set[Partition]:
        """Return the partitions that can be assigned to a member: no other owns them any more."""
        desired = self._targets.get(id(member), set()) - member.owned
        return desired - {one for other in self.members if other is not member for one in other.owned}

    def is_member(self, member: Member) -> bool:
        """Return whether it is a member of the group."""
        return member in self.members and id(member) in self._targets

    def released(self) -> None:
        """Handle a revocation: the partitions can be assigned to others."""
        for member in self.members:
            member.wake()

    def _look_at_topics(self) -> None:
        names = set(self._brokers.topics)
        if names != self._names:
            self._names = names
            self.rebalance(1.0)

    def _assign(self) -> None:
        if not self._brokers.are_up:
            self.rebalance(1.0)
            return
        self.rebalances += 1
        self._targets = {id(member): set() for member in self.members}
        for name, topic in sorted(self._brokers.topics.items()):
            readers = [member for member in self.members if name in member.topics]
            if not readers:
                continue
            fair = -(-len(topic.logs) // len(readers))
            partitions = [(name, number) for number in range(len(topic.logs))]
            taken = {id(member): 0 for member in readers}
            left = []
            for partition in partitions:
                holder = next((one for one in readers if partition in one.owned), None)
                if holder is not None and taken[id(holder)] < fair:
                    self._give(taken, holder, partition)
                else:
                    left.append(partition)
            for partition in left:
                self._give(taken, min(readers, key=lambda one: taken[id(one)]), partition)
        for member in self.members:
            member.wake()

    def _give(self, taken: dict[int, int], member: Member, partition: Partition) -> None:
        taken[id(member)] += 1
        self._targets[id(member)].add(partition)
