# SPDX-License-Identifier: Apache-2.0
"""What every round policy shares: models to start from, the fold, the commit. Time and I/O come from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.pace import Arrivals, Pace
from fedmote.fleet.selection import Selector
from fedmote.fleet.served_models import CLASS_SHIFT, Base, Image
from fedmote.fleet.uploads import Slot
from fedmote.learning.strategy import Strategy
from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote.rounds.deadlines import Deadline, Deadlines
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.store.store import Store
from fedmote.tasks.base import TaskLimits
from fedmote.tasks.desk import Tasks
from fedmote.wire.codec import encode
from fedmote.wire.Encoding import Encoding
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.UpdateKind import UpdateKind
from fedmote_device import kernels

CALL_S = (5.0, 60.0)  # between calls to say Hello while too few devices are there: at first, at most
MOST_MS = 0xFFFF_FFFF  # that the wire can tell
RESELECT_S = 1.0  # between looks for devices while too few are there, or after a round that too few reported in


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
