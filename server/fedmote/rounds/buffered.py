# SPDX-License-Identifier: Apache-2.0
"""The asynchronous policy: devices come and go by themselves, and each `buffer` updates make a model.

FedBuff (Nguyen et al. 2022, arXiv:2106.06639, algorithm 1), with what a restart needs: who was asked for what, and
whose work a committed model holds already, is durable before it is said.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.pace import next_meeting
from fedmote.fleet.served_models import Base
from fedmote.learning.strategy import Strategy
from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote.rounds.machine import RESELECT_S, Machine, cut_off
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.store.store import Store
from fedmote.wire.codec import encode
from fedmote.wire.RefusalReason import RefusalReason

LOOKS_AT = 20_000  # sessions a second, in search of devices to ask, while others are at work
FEW = 1000  # sessions that are looked at whenever something came


@dataclass(slots=True)
class _Given:
    """What was asked of one device."""

    round: int
    work: tuple[Assignment, ...]  # of each class of devices; after a restart its own is known from its Hello
    base: Base
    planned_at: float | None  # None: before a restart
    overdue_at: float  # from then on another device may be asked in its place; its update still counts
    overdue: bool = False  # and it was taken note of


class Buffered(Machine):
    """Each device starts from the newest model when it is asked; a round is what is folded between two commits.

    An update counts in the round that is open when it comes, unless more than policy.max_staleness rounds were
    committed since its plan; its staleness s discounts it by (1 + s) ** -policy.staleness_exponent. A device counts at
    most once in a round, and its plan's number is that of the round that was open when it was asked. Fewer than
    `buffer` make a round when nobody who is there has anything to add.
    """

    def __init__(
        self, fleet: Fleet, store: Store, strategy: Strategy, training: Training, policy: Policy, **options: Any
    ) -> None:
        self.given: dict[str, _Given] = {}
        self.working: set[str] = set()  # those in `given` that are not overdue
        self._due: list[tuple[float, str]] = []  # a heap: when each of them will be; some who ended are in it yet
        self._looks_from = 0.0  # when it is time for the next look, if one was put off
        self._put_off = False
        self.started: float | None = None
        super().__init__(fleet, store, strategy, training, policy, **options)
        oldest = self.number - policy.max_staleness
        works: dict[int, tuple[Assignment, ...]] = {}
        for device, number in store.outstanding(oldest):
            version = number  # round n starts from model n
            if version not in self.bases:
                if not store.has(version):  # max_staleness was less until now, and the device told that it is too late
                    continue
                self.add_base(version, store.model(version))
            if number not in works:
                works[number] = self.give(number, self.bases[version], self.deadlines[-1].present)
            self.given[device] = _Given(number, works[number], self.bases[version], None, 0.0)

    def begin_round(self) -> None:
        """Start the next round's account."""
        super().begin_round()
        self.counted: dict[str, int] = {}  # device -> the round of its plan, for those in `receipts`
        self.withdrawn: set[str] = set()
        self.dropped: set[str] = set()
        self.staleness = 0

    # ---- what a session asks (fedmote.session.Work)

    @property
    def slot_granted(self) -> bool:
        """Whether there is a slot for every device that is asked at a time."""
        return self._wanted(len(self.fleet.sessions)) <= self.fleet.limits.slots

    @property
    def closing_notice(self) -> bytes | None:
        """None: each device has its own deadline, and knows it from its plan."""
        return None

    def open_round(self, device: str) -> int:
        """Return the round of the device's plan while its work may count, else the one that it may be asked for."""
        given = self.given.get(device)
        return given.round if given is not None else self.counted.get(device, self.number)

    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""
        given = self.given.get(device)
        return None if given is None else given.work[self.fleet.size_of(device)]

    def may_plan(self, device: str, round: int) -> bool:
        """Never: who was asked for what is durable, so an update that is not awaited will not be."""
        return False

    def folded(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update of that round if it was folded and not committed yet."""
        return self.receipts.get(device) if self.counted.get(device) == round else None

    def committed(self, device: str, round: int) -> int | None:
        """Return the model version that the device's update of that round went into."""
        if device in self.given and self.given[device].round == round:
            return None
        return self.store.counted_in(device, round)

    def take(self, update: Update, crc32: int) -> int | None:
        """Fold an update. None: done; otherwise the RefusalReason."""
        given = self.given.get(update.device)
        if given is None:
            return int(RefusalReason.NotPlanned)
        staleness = self.number - given.round
        if staleness:
            discount = float((1 + staleness) ** -self.policy.staleness_exponent)
            update = replace(update, base=given.base.model, discount=discount)
        reason = self.fold(update, crc32, given.planned_at)
        if given.overdue:
            self.times.pop(update.device, None)
        if reason is None:
            self._end(update.device)
            self.counted[update.device] = given.round
            self.staleness += staleness
        else:
            self.withdrew(update.device, given.round)
        return reason

    def wanted_at(self) -> float:
        """Return when a device is wanted: at once, unless enough are at work, or too few there for a start."""
        now = self.fleet.now
        if not self.given and not self.receipts and not self.fleet.are_ready(self.policy.devices):
            return next_meeting(now, self.pace.meet_s)
        if self.started is None or len(self.working) < self._wanted(len(self.fleet.sessions)):
            return now
        return max(now, self.started + (self.lasted_s or self.deadlines[-1].present.hard_s))

    def came(self, device: str) -> None:
        """The device said Hello. Who was asked for what is known already, also after a restart."""

    def gone(self, device: str) -> None:
        """The device's link broke."""
        if device in self.given:
            self.dropped.add(device)

    def withdrew(self, device: str, round: int) -> None:
        """The device will not do that round's work; it is not asked again before the next one."""
        given = self.given.get(device)
        if given is not None and given.round == round:
            self.store.unassign(device)
            self._end(device)
            self.withdrawn.add(device)

    def _await(self, device: str, given: _Given) -> None:
        """Count a device among those at work until it is overdue."""
        self.given[device] = given
        self.working.add(device)
        if len(self._due) > 2 * len(self.working) + 100:
            self._due = [(self.given[d].overdue_at, d) for d in self.working - {device}]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (given.overdue_at, device))

    def _end(self, device: str) -> _Given:
        """Await nothing of a device any longer; return what was asked of it."""
        self.working.discard(device)
        return self.given.pop(device)

    def _next_due(self, now: float) -> float | None:
        """Take those who are overdue from those at work; return when the next one will be, None: nobody works."""
        while self._due:
            at, device = self._due[0]
            if device in self.working and self.given[device].overdue_at == at:
                if at > now:
                    return at
                self.working.discard(device)
            heapq.heappop(self._due)
        return None

    # ---- time

    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to tick again at the latest."""
        self.fleet.now = now
        if self.started is None:
            self.started = now
            for device, given in list(self.given.items()):  # from before a restart: their time runs anew
                given.overdue_at = now + self.policy.hard_deadline_s
                self._await(device, given)
        if len(self.receipts) >= self.policy.buffer:
            self._finish(now)
        self._next_due(now)
        working = len(self.working)
        if not working and not self.receipts:
            if not self.tasks.waits(now):
                self.tasks.tick(now, self, self._free())
        else:
            self.tasks.expire(now, self._free)
        asked = self._ask(now, working)
        if self.receipts and not working and not asked:
            self._finish(now)
            self._ask(now, 0)
        due = self._next_due(now)
        if due is None:
            return now + RESELECT_S
        return min(due, self._looks_from) if self._put_off else due

    def _free(self) -> list[str]:
        """Return who is there and has no work in hand."""
        return [device for device in self.fleet.ready() if device not in self.given]

    def _wanted(self, there: int) -> int:
        """Return how many are to work at a time."""
        share = self.policy.select
        return round(share) if share > 1 else max(1, round(share * there))

    def _ask(self, now: float, working: int) -> int:
        """Ask as many as may work besides those that do; return their number.

        It takes a list of all who are there. Where these are many, it is not made anew with every message that comes.
        """
        sessions = len(self.fleet.sessions)
        self._put_off = False
        if self.tasks.waits(now) or (working and self._wanted(sessions) <= working):
            return 0
        self._put_off = bool(working) and now < self._looks_from
        if self._put_off:
            return 0
        self._looks_from = now + sessions / LOOKS_AT if sessions > FEW else now
        there = self.fleet.ready()
        free = self._wanted(len(there)) - working
        if self.tasks.hold(
            [d for d in there if d not in self.given or d in self.working]
        ):  # those at work come to their end first
            return 0
        if self.done or not (working or self.receipts or self.enough(there, now)) or free <= 0:
            return 0
        ready = [d for d in there if d not in self.given and d not in self.receipts and d not in self.withdrawn]
        if not ready:
            return 0
        deadline = self.deadlines[-1].present
        _, chosen = self.selector.choose(ready, free, self.number, deadline.soft_s, self.record.selected)
        self.store.assign(chosen, self.number)
        self.selector.asked(chosen, self.number)
        self.record.soft_deadline_s = deadline.soft_s
        work = self.give(self.number, self.base, deadline)
        for device in chosen:
            self._await(device, _Given(self.number, work, self.base, now, now + deadline.hard_s))
            self.fleet.plan(device, work[self.fleet.size_of(device)])
        self.record.selected += len(chosen)
        return len(chosen)

    def _finish(self, now: float) -> None:
        """Commit, tell whom it holds, and let go of what became too old."""
        last = self.number - self.policy.max_staleness  # plans of this round and before are too old after the commit
        for slot in self.fleet.slots():
            given = self.given.get(slot.update.device)
            if given is not None and given.round == slot.round <= last and self.is_foldable(slot):
                self.take(cut_off(slot), slot.crc32)
        record = self.record
        record.dropped, record.withdrawn = len(self.dropped), len(self.withdrawn)
        record.staleness = self.staleness / len(self.receipts)
        counted = self.counted
        assert self.started is not None
        self.commit(now - self.started)
        self._learn(now)  # not before: a commit that failed is tried again
        self.started = now
        for device, number in counted.items():
            self.fleet.tell(device, encode("Commit", round=number, model_version=self.version))
        late = [device for device, given in self.given.items() if given.round <= last]
        for device in late:
            self.fleet.close(device, self._end(device).round)
        self.go_on(record, frozenset(given.base.version for given in self.given.values()))

    def forget(self) -> None:
        """Await nothing of anybody any longer."""
        self.given.clear()
        self.working.clear()

    def _learn(self, now: float) -> None:
        overdue: dict[str, float] = {}
        for device, given in self.given.items():
            if given.overdue_at <= now and not given.overdue and given.planned_at is not None:
                given.overdue = True
                overdue[device] = now - given.planned_at
        self.learn(self.record.tier, overdue)

    def write(self, model: Model, record: Record) -> int:
        """Make model, record and whose updates it holds durable, all or nothing; return the version."""
        return self.store.commit(record.round, model, asdict(record), self.counted, self.selector.unsaved)
