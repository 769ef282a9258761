# SPDX-License-Identifier: Apache-2.0
"""Rounds: select devices, plan, wait, close, fold what came, commit. Time and I/O come from outside.

`Machine` is what every policy shares: models to start from, the fold, the commit. `Rounds` is the synchronous policy:
selecting -> training -> closing -> selecting of the next round (or of the same one, when too few reported).
fedmote.buffered has the asynchronous one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from fedmote.codec import encode
from fedmote.layout import ROUNDING, SubLayout
from fedmote.pace import Arrivals, Deadline, Deadlines, Pace, next_meeting
from fedmote.selection import Selector, Tiers
from fedmote.session import Assignment, Fleet, Slot
from fedmote.store import Store
from fedmote.strategy import Model, Strategy, Update
from fedmote.tasks import TaskLimits, Tasks
from fedmote.wire.Encoding import Encoding
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.UpdateKind import UpdateKind
from fedmote_device import kernels

CLASS_SHIFT = 28  # where a device's class is in a model's version on the wire
CALL_S = (5.0, 60.0)  # between calls to say Hello while too few devices are there: at first, at most
MOST_MS = 0xFFFF_FFFF  # that the wire can tell
RESUMING = 4  # hard deadlines that a round lasts at most for devices whose work of it a former server had asked for
RESELECT_S = 1.0  # between looks for devices while too few are there, or after a round that too few reported in


@dataclass(frozen=True, slots=True)
class Training:
    """What the plan asks of each device."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.1
    prox_mu: float = 0.0
    max_steps: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """When a round starts, closes and ends.

    select: devices asked, as a share of those there (at most 1) or a number (above 1). devices: how many must be there
    before a round starts. soft_deadline_s, hard_deadline_s: since the plan. adaptive: these are the longest; as the
    fleet shows how long it takes they become shorter (fedmote.pace), the soft one not below min_deadline_s.
    Synchronous rounds (buffer = 0): goal: share of the selected whose reports bring the closing notice. min_reports:
    fewer, and the round is opened again. resume_s: after a restart, time for devices that hold work to come back before
    the round is planned anew.
    Asynchronous rounds: buffer: updates that make a round. max_staleness: rounds that may be committed between a plan
    and its update. staleness_exponent: an update s rounds old is followed to a share of (1 + s) to minus this.
    """

    select: float = 1.0
    devices: int = 1
    goal: float = 0.8
    soft_deadline_s: float = 60.0
    hard_deadline_s: float = 120.0
    min_reports: int = 1
    resume_s: float = 3.0
    partial: bool = True
    chunk_elements: int = 1024
    one_at_a_time: bool = False  # updates are folded in a fixed order: the same seed gives the same bits
    encodings: tuple[str, ...] = ("float32", "int8")
    seed: int = 1
    buffer: int = 0
    max_staleness: int = 5
    staleness_exponent: float = 0.5
    adaptive: bool = False
    min_deadline_s: float = 10.0


class State(Enum):
    """Of the round."""

    SELECTING = "selecting"
    TRAINING = "training"
    CLOSING = "closing"


@dataclass(slots=True)
class Record:
    """One round, as it goes into the log."""

    round: int
    selected: int = 0
    reported: int = 0
    partial: int = 0
    dropped: int = 0
    withdrawn: int = 0
    examples: int = 0
    staleness: float = 0.0  # mean of the updates, in rounds
    rolled_back_to: int = 0  # the earlier model that was committed anew, in place of a round
    tier: int = 1  # whose turn it was (fedmote.selection)
    soft_deadline_s: float = 0.0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """What a class of devices gets of a committed model: checksum and ModelChunk messages, under a version of its own.

    version: on the wire, the class in the upper four bits; class 0, the whole model, has the model's own.
    """

    version: int
    elements: int
    crc32: int
    chunks: list[bytes]

    @classmethod
    def of(cls, version: int, model: Model, chunk_elements: int) -> Image:
        """Cut a class's model into chunks."""
        data = model.astype("<f4").tobytes()
        size = 4 * chunk_elements
        chunks = [
            encode("ModelChunk", version=version, index=i, data=data[at : at + size])
            for i, at in enumerate(range(0, len(data), size))
        ]
        return cls(version, model.size, kernels.crc32(data), chunks)


@dataclass(frozen=True, slots=True)
class Base:
    """A committed model, and what each class of devices gets of it."""

    version: int
    model: Model
    images: tuple[Image, ...]

    @classmethod
    def of(cls, version: int, model: Model, chunk_elements: int, classes: tuple[SubLayout, ...]) -> Base:
        """Cut a model for each class."""
        images = (
            Image.of(size << CLASS_SHIFT | version, one.cut(model), chunk_elements) for size, one in enumerate(classes)
        )
        return cls(version, model, tuple(images))


class Machine(ABC):
    """One federation's rounds, by whatever policy.

    broadcast: sends a message to all. publish: makes a model's chunks available, (version, messages), or takes them
    back, (version, []). evaluate: called with each new model; its figures go into the log.
    """

    def __init__(
        self,
        fleet: Fleet,
        store: Store,
        strategy: Strategy,
        training: Training,
        policy: Policy,
        *,
        broadcast: Callable[[bytes], None],
        publish: Callable[[int, list[bytes]], None],
        evaluate: Callable[[Model], dict[str, float]] | None = None,
        on_commit: Callable[[Record], None] | None = None,
        last_round: int | None = None,
        pace: Pace | None = None,
        tasks: TaskLimits | None = None,
    ) -> None:
        self.fleet, self.store, self.strategy = fleet, store, strategy
        fleet.work = self
        self.tasks = Tasks(fleet, tasks or TaskLimits())
        self.training, self.policy, self.pace = training, policy, pace or Pace()
        self.selector = Selector(fleet.selection, policy.seed, store.asked)
        self.arrivals = Arrivals(self.pace.arrivals_per_s)
        bounds = Deadline(policy.soft_deadline_s, policy.hard_deadline_s)
        self.deadlines = [
            Deadlines(bounds, policy.min_deadline_s, policy.goal) for _ in range(fleet.selection.tiers + 1)
        ]  # of each tier
        self.lasted_s = 0.0  # of the last round
        self.broadcast, self.publish = broadcast, publish
        self.evaluate, self.on_commit, self.last_round = evaluate, on_commit, last_round
        self.version, done, self.model = store.latest()
        self.number = done + 1
        self.done = last_round is not None and done >= last_round  # a server that died after its last commit
        self.bases: dict[int, Base] = {}  # models that devices may start from, by version
        self.add_base(self.version, self.model)
        self.begin_round()
        self.broadcast(fleet.say_hello())  # devices that stayed connected do not notice that the server is another
        self._calls_at: float | None = None
        self._call_s = CALL_S[0]

    def enough(self, there: list[str], now: float) -> bool:
        """Tell whether enough devices are there to begin. If not, call: those that have nothing to do say nothing."""
        if len(there) >= self.policy.devices:
            self._calls_at = None
            return True
        if self._calls_at is None:
            self._calls_at, self._call_s = now + CALL_S[0], CALL_S[0]
        elif now >= self._calls_at:
            self.broadcast(self.fleet.say_hello())
            self._call_s = min(2 * self._call_s, CALL_S[1])
            self._calls_at = now + self._call_s
        return False

    @abstractmethod
    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to tick again at the latest."""

    def begin_round(self) -> None:
        """Start the next round's account."""
        self.record = Record(self.number)
        self.times: dict[str, float] = {}  # device -> seconds that its whole update took
        self.receipts: dict[str, int] = {}  # device -> CRC-32 of its folded update: what makes it count once
        self.accumulator = self.strategy.begin(self.model)

    @property
    def base(self) -> Base:
        """The model of the round."""
        return self.bases[self.version]

    def add_base(self, version: int, model: Model) -> None:
        """Have a model ready for devices."""
        base = self.bases[version] = Base.of(version, model, self.policy.chunk_elements, self.fleet.classes)
        if not self.done:
            for image in base.images:
                self.publish(image.version, image.chunks)

    def keep_bases(self, versions: set[int]) -> None:
        """Take back the models that nobody is to start from any longer: all but these."""
        for version in self.bases.keys() - versions - {self.tasks.version}:
            for image in self.bases.pop(version).images:
                self.publish(image.version, [])

    def lend(self, version: int) -> Base:
        """Have a committed model ready for a task's devices; 0: the latest. StoreError: it is not kept."""
        version = version or self.version
        if version not in self.bases:
            self.add_base(version, self.store.model(version))
        return self.bases[version]

    def give(self, number: int, base: Base, deadline: Deadline) -> tuple[Assignment, ...]:
        """Return each class's work in round `number`, which starts from `base`."""
        granted = self.slot_granted
        return tuple(
            Assignment(number, image.version, image.crc32, self._encode_plan(number, image, deadline), granted)
            for image in base.images
        )

    def _encode_plan(self, number: int, image: Image, deadline: Deadline) -> bytes:
        return encode(
            "Plan",
            round=number,
            model_version=image.version,
            model_elements=image.elements,
            model_crc32=image.crc32,
            model_chunk_elements=self.policy.chunk_elements,
            update_chunk_elements=self.policy.chunk_elements,
            encodings=self.encodings,
            kinds=1 << UpdateKind.Weights | 1 << UpdateKind.Delta,
            partial_allowed=self.policy.partial,
            slot_granted=self.slot_granted,
            seed=int(self.drawn(number, 1).integers(1 << 32)),
            soft_deadline_ms=int(1000 * deadline.soft_s),
            hard_deadline_ms=int(1000 * deadline.hard_s),
            **asdict(self.training),
        )

    def drawn(self, *what: int) -> np.random.Generator:
        """Return a generator that the policy's seed and `what` alone determine."""
        return np.random.default_rng([self.policy.seed, *what])

    @property
    @abstractmethod
    def slot_granted(self) -> bool:
        """Whether there is a slot for every device that is asked."""

    def fold(self, update: Update, crc32: int, planned_at: float | None) -> int | None:
        """Fold an update that is awaited. None: done; otherwise the RefusalReason.

        planned_at: when its device was asked; None: the time that it took tells nothing.
        """
        if update.partial and not self.policy.partial:
            return int(RefusalReason.Closed)
        if not self.strategy.fold(self.accumulator, update):
            return int(RefusalReason.NonFinite)
        self.receipts[update.device] = crc32
        self.record.reported += 1
        self.record.partial += update.partial
        self.record.examples += update.examples
        if planned_at is not None and not update.partial:
            seconds = self.times[update.device] = self.fleet.now - planned_at
            self.selector.reported(update.device, self.number, seconds, update.examples, update.loss)
        return None

    def learn(self, tier: int, overdue: dict[str, float]) -> None:
        """Draw the lesson of the reports in `times` and of those not done after so many seconds."""
        for device, seconds in overdue.items():
            self.selector.missed(device, seconds)
        if self.policy.adaptive:
            self.deadlines[tier].learn(list(self.times.values()), len(overdue))
        self.times = {}

    def commit(self, seconds: float) -> Record:
        """Make the folded updates' model durable and go on to the next round; announce nothing."""
        record = self.record
        record.seconds = self.lasted_s = seconds
        return self._commit(self.strategy.finish(self.accumulator), record, self.write)

    def _commit(self, model: Model, record: Record, write: Callable[[Model, Record], int]) -> Record:
        if self.evaluate is not None:
            record.metrics = self.evaluate(model)
        self.version = write(model, record)
        self.selector.saved()
        self.model = model
        self.done = self.last_round is not None and self.number >= self.last_round
        self.number += 1
        return record

    def write(self, model: Model, record: Record) -> int:
        """Make a model and its round's record durable; return its version."""
        return self.store.commit(record.round, model, asdict(record), asked=self.selector.unsaved)

    def roll_back(self, version: int) -> int:
        """Commit an earlier model anew, as the next version, which is returned. StoreError: it is not kept.

        What devices hold or work on is void: it comes of models that are not wanted. Called between rounds.
        """

        def write(model: Model, record: Record) -> int:
            asked = self.selector.unsaved
            return self.store.commit(record.round, model, asdict(record), asked=asked, void=True)

        record = self._commit(self.store.model(version), Record(self.number, rolled_back_to=version), write)
        self.broadcast(encode("Commit", round=record.round, model_version=self.version))
        self.forget()
        self.go_on(record)
        return self.version

    def release(self, version: int) -> None:
        """Note that a model was rolled out to all."""
        self.store.set_released(version)

    def hold(self, versions: set[int]) -> None:
        """Keep the models of a roll-out for as long as it takes. StoreError: one of them is not kept."""
        self.store.hold(versions)

    @abstractmethod
    def forget(self) -> None:
        """Await nothing of anybody any longer."""

    def go_on(self, record: Record, in_use: frozenset[int] = frozenset()) -> None:
        """Begin the next round after a commit. in_use: versions that somebody still starts from."""
        self.add_base(self.version, self.model)
        self.keep_bases({self.version} | in_use)
        self.begin_round()
        self.fleet.end_round()
        if self.on_commit is not None:
            self.on_commit(record)

    def is_foldable(self, slot: Slot) -> bool:
        """Tell whether an upload that the deadline cuts off counts: what came of it, or all of it, unless damaged."""
        if slot.missing == 0:
            return kernels.crc32(slot.update.data) == slot.crc32
        return self.policy.partial and any(slot.received)

    # ---- what a session asks (fedmote.session.Work)

    @property
    def encodings(self) -> int:
        """Mask of what the plan lets a device send."""
        return sum(1 << getattr(Encoding, e.capitalize()) for e in self.policy.encodings)

    @property
    def chunk_elements(self) -> int:
        """Elements of an update's chunk."""
        return self.policy.chunk_elements

    def chunk(self, version: int, index: int) -> bytes | None:
        """Return a ModelChunk message of a model that an assignment starts from."""
        base, size = self.bases.get(version & (1 << CLASS_SHIFT) - 1), version >> CLASS_SHIFT
        if base is None or size >= len(base.images) or index >= len(base.images[size].chunks):
            return None
        return base.images[size].chunks[index]

    @abstractmethod
    def open_round(self, device: str) -> int:
        """Return the round whose work is not over for the device."""

    @abstractmethod
    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""

    @abstractmethod
    def may_plan(self, device: str, round: int) -> bool:
        """Whether the device may yet be asked for an update of that round."""

    @property
    @abstractmethod
    def closing_notice(self) -> bytes | None:
        """The notice for a device that was away when all were told."""

    @abstractmethod
    def folded(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update of that round if it was folded and not committed yet."""

    @abstractmethod
    def committed(self, device: str, round: int) -> int | None:
        """Return the model version with which the device's work of that round came to its end."""

    @abstractmethod
    def take(self, update: Update, crc32: int) -> int | None:
        """Fold an update. None: done; otherwise the RefusalReason."""

    @abstractmethod
    def wanted_at(self) -> float:
        """Return from when on devices that have nothing to do are wanted; now, when a plan may come at any time."""

    def come_back_s(self, device: str) -> float:
        """Return for how long a device that says Hello need not expect a plan."""
        now = self.fleet.now
        if self.assignment(device) is not None or self.tasks.plan(device) is not None:
            return 0.0
        wanted_at, ready = self.wanted_at(), self.fleet.is_ready(device)
        if not ready:
            wanted_at = max(wanted_at, now + self.pace.ineligible_s)
        if wanted_at <= now:
            return 0.0
        places = self.fleet.sessions[device].places
        if places[ready] <= now:  # whoever says Hello again and again does not take the places of others
            places[ready] = now + self.arrivals.come_back_s(now, wanted_at)
        return places[ready] - now

    @abstractmethod
    def came(self, device: str) -> None:
        """The device is here: it said Hello, or offers an update that nobody awaits."""

    @abstractmethod
    def gone(self, device: str) -> None:
        """The device's link broke."""

    @abstractmethod
    def withdrew(self, device: str, round: int) -> None:
        """The device will not do that round's work."""


def cut_off(slot: Slot) -> Update:
    """Return the update of an upload that a deadline cut off: the chunks that came."""
    return replace(slot.update, received=slot.received) if slot.missing else slot.update


class Rounds(Machine):
    """The synchronous policy: all that are selected start from one model, and the round ends for all at once."""

    def __init__(
        self, fleet: Fleet, store: Store, strategy: Strategy, training: Training, policy: Policy, **options: Any
    ) -> None:
        self.state = State.SELECTING
        self._may_hold_work = store.begun
        self._selects_from: float | None = None
        super().__init__(fleet, store, strategy, training, policy, **options)

    def begin_round(self) -> None:
        """Start the next round's account."""
        super().begin_round()
        self.asked: set[str] = set()  # who has or had the round's plan, also before it was opened again
        self._deselect()

    def _deselect(self) -> None:
        self.selected: list[str] = []
        self.planned: list[str] = []  # the first of them, who were sent the plan
        self.sent: set[str] = set()  # the same: no message is to cost a list of the fleet
        self.outstanding: set[str] = set()  # those selected that neither reported nor withdrew
        self.holders: set[str] = set()  # those whose work was done before they were asked
        self.withdrawn: set[str] = set()
        self.refused: set[str] = set()  # those of them whose update was not taken: the next one would be the same
        self.dropped: set[str] = set()
        self.work: tuple[Assignment, ...] = ()  # of each class of devices
        self.started = 0.0
        self.deadline = self.deadlines[0].present

    # ---- what a session asks (fedmote.session.Work)

    @property
    def slot_granted(self) -> bool:
        """Whether there is a slot for every selected device."""
        return len(self.selected) <= self.fleet.limits.slots

    def open_round(self, device: str) -> int:
        """Return the round in progress: it is the same for all."""
        return self.number

    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""
        awaited = self.state is not State.SELECTING and device in self.sent and device in self.outstanding
        return self.work[self.fleet.size_of(device)] if awaited else None

    def may_plan(self, device: str, round: int) -> bool:
        """Whether the device may yet be asked for an update of that round."""
        unplanned = device in self.outstanding and device not in self.sent
        return round == self.number and (self.state is State.SELECTING or unplanned or self._may_join(device))

    def _may_join(self, device: str) -> bool:
        """Tell whether work on the round may come of the device although it is not selected now."""
        known = device in self.outstanding or device in self.receipts or device in self.refused
        return not known and (self._may_hold_work or device in self.asked or device in self.withdrawn)

    @property
    def closing_notice(self) -> bytes | None:
        """The notice for a device that was away when all were told."""
        if self.state is not State.CLOSING:
            return None
        left_ms = int(1000 * max(0.0, self._ends_at() - self.fleet.now))
        return encode("ClosingNotice", round=self.number, remaining_ms=min(left_ms, MOST_MS))

    def folded(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update if the round has folded it."""
        return self.receipts.get(device) if round == self.number else None

    def committed(self, device: str, round: int) -> int | None:
        """Return the model version that came of an earlier round."""
        return self.store.version_of(round) if round < self.number else None

    def take(self, update: Update, crc32: int) -> int | None:
        """Fold an update. None: done; otherwise the RefusalReason."""
        if update.device not in self.outstanding:
            return int(RefusalReason.NotPlanned)
        reason = self.fold(update, crc32, None if update.device in self.holders else self.started)
        self.outstanding.discard(update.device)
        if reason is not None:
            self.withdrawn.add(update.device)
            self.refused.add(update.device)
            self.asked.discard(update.device)
        return reason

    def came(self, device: str) -> None:
        """The device is here. One whose work was asked for before, by this server or a former one, joins the round."""
        if self.state is not State.SELECTING and self._may_join(device) and self.fleet.holds(device, self.number):
            if device in self.withdrawn:  # a Withdraw that came late, or crossed the plan: it did the work after all
                self.withdrawn.discard(device)
            else:
                self.selected.insert(len(self.planned), device)
                self.planned.append(device)
                self.sent.add(device)
                self.holders.add(device)
                self.record.selected += 1
            self.asked.add(device)
            self.outstanding.add(device)

    def gone(self, device: str) -> None:
        """The device's link broke."""
        if self.state is not State.SELECTING and (device in self.outstanding or device in self.sent):
            self.dropped.add(device)

    def withdrew(self, device: str, round: int) -> None:
        """The device will not do the round's work."""
        if round == self.number:
            self.asked.discard(device)
        if round == self.number and self.state is not State.SELECTING and device in self.outstanding:
            self.outstanding.discard(device)
            self.withdrawn.add(device)

    # ---- time

    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to tick again at the latest."""
        self.fleet.now = now
        number = self.number
        if self.state is State.SELECTING:
            self._select(now)
        if self.state is State.TRAINING:
            self._plan_devices()
            goal = math.ceil(self.policy.goal * len(self.selected) - ROUNDING)
            reported = len(self.selected) - len(self.outstanding) - len(self.withdrawn)
            if not self.outstanding:
                self._finish(now)
            elif (
                reported >= goal and len(self.planned) == len(self.selected)
            ) or now >= self.started + self.deadline.soft_s:
                self._close(now)
        if self.state is State.CLOSING and (not self.outstanding or now >= self._ends_at()):
            self._finish(now)
        return {
            State.SELECTING: now if self.number != number else now + RESELECT_S,
            State.TRAINING: self.started + self.deadline.soft_s,
            State.CLOSING: self._ends_at(),
        }[self.state]

    def _ends_at(self) -> float:
        """Return when the round ends with what there is.

        Later while work is outstanding that was done for a server that died: it may have had its receipt already.
        """
        patience = RESUMING if self._may_hold_work and self.holders & self.outstanding else 1
        return self.started + patience * self.deadline.hard_s

    def _select(self, now: float) -> None:
        if self._selects_from is None:
            self._selects_from = now + (self.policy.resume_s if self._may_hold_work else 0.0)
        if now < self._selects_from or self.tasks.waits(now):
            return
        there = self.fleet.ready()
        if self.tasks.tick(now, self, [device for device in there if not self._at_work(device)]):
            return
        ready = [device for device in there if device not in self.receipts]
        if self.done or not self.enough(there, now) or not ready:
            return
        share = self.policy.select
        count = round(share) if share > 1 else max(1, round(share * len(ready)))
        holders = [device for device in ready if self.fleet.holds(device, self.number)][:count]
        others = [device for device in ready if not self.fleet.holds(device, self.number)]
        slowest_s = self.deadlines[-1].present.soft_s
        tier, chosen = self.selector.choose(others, count - len(holders), self.number, slowest_s)
        if holders and self.fleet.selection.tiers > 1:
            tier = Tiers.PROFILING  # they may be of any speed
        self._deselect()
        self.holders = set(holders)
        self.selected = sorted(holders + chosen)
        self.outstanding = set(self.selected)
        self.deadline = self.deadlines[tier].present
        self.record.tier, self.record.soft_deadline_s = tier, self.deadline.soft_s
        self.record.selected = len(self.receipts) + len(self.selected)
        self.store.begin()
        self.selector.asked(self.selected, self.number)
        self.started = now
        self.state = State.TRAINING
        self.work = self.give(self.number, self.base, self.deadline)
        self._plan_devices()

    def _at_work(self, device: str) -> bool:
        """Tell whether the device may have this round's work in hand, which the plan of a task would replace.

        Whom a former server had asked nobody knows: for a hard deadline after a restart it may be any device.
        """
        since = self._selects_from or 0.0
        if self._may_hold_work and not self.done and self.fleet.now < since + self.policy.hard_deadline_s:
            return True
        return device in self.asked or device in self.receipts or self.fleet.holds(device, self.number)

    def _plan_devices(self) -> None:
        """Send the plan to those who are to have it by now."""
        for device in self.selected[len(self.planned) :]:
            if self.policy.one_at_a_time and self.outstanding & self.sent:
                break
            self.planned.append(device)
            self.sent.add(device)
            self.asked.add(device)
            self.fleet.plan(device, self.work[self.fleet.size_of(device)])

    def _close(self, now: float) -> None:
        self.state = State.CLOSING
        notice = self.closing_notice
        if notice is not None:
            self.broadcast(notice)

    def _finish(self, now: float) -> None:
        slots = [slot for slot in self.fleet.slots() if self._awaits(slot) and self.is_foldable(slot)]
        if len(self.receipts) + len(slots) >= self.policy.min_reports:
            for slot in slots:
                self.take(cut_off(slot), slot.crc32)
        late = sorted(set(self.planned) - self.withdrawn - self.holders - self.times.keys())
        overdue = dict.fromkeys(late, now - self.started)
        if len(self.receipts) < self.policy.min_reports:
            self.learn(self.record.tier, overdue)
            self.state = State.SELECTING  # the same round goes on with others; what was folded or came stays
            return
        self.record.dropped, self.record.withdrawn = len(self.dropped), len(self.withdrawn)
        record = self.commit(now - self.started)
        self._may_hold_work = False
        self.learn(record.tier, overdue)  # not before: a commit that failed is tried again
        self.broadcast(encode("Commit", round=record.round, model_version=self.version))
        self.state = State.SELECTING
        self.go_on(record)

    def forget(self) -> None:
        """Between rounds nothing is awaited; what was folded of a round that was to be opened again goes with it."""

    def wanted_at(self) -> float:
        """Return when the next round is expected; while too few are there, when they meet."""
        now = self.fleet.now
        if self.state is not State.SELECTING:
            return max(now, self.started + (self.lasted_s or self.deadline.hard_s))
        return now if self.fleet.are_ready(self.policy.devices) else next_meeting(now, self.pace.meet_s)

    def _awaits(self, slot: Slot) -> bool:
        return slot.round == self.number and slot.update.device in self.outstanding
