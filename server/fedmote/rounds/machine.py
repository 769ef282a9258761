# SPDX-License-Identifier: Apache-2.0
"""What every round policy shares: the models that devices start from, the fold, the commit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace

from fedmote.fleet.coordinators import Refusal, RoundCoordinator
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.selector import Selector
from fedmote.fleet.served_models import ServedModels
from fedmote.fleet.slots import Slot
from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote.rounds.deadlines import Deadline, Deadlines
from fedmote.rounds.judge import FAILED, NOT_FINITE, Judge
from fedmote.rounds.pacing import Pacing
from fedmote.rounds.plans import Plans
from fedmote.rounds.quorum import Quorum
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup, TaskQueue
from fedmote.rounds.task_host import TaskHost
from fedmote.store.store import Store
from fedmote.wire.codec import encode
from fedmote.wire.RefusalReason import RefusalReason
from fedmote_device import kernels

RESELECT_S = 1.0  # seconds until the next search for devices, when too few were ready or too few reported


class RoundMachine(RoundCoordinator):
    """One federation's rounds. A subclass is a policy: it selects devices, closes rounds and commits them.

    number: of the present round. version, model: of the last commit, which the round starts from. record, receipts,
    times: of the present round; receipts: the CRC-32 of each device's folded update, which makes it count once; times:
    how many seconds each whole update took. done: whether the last round is committed.
    """

    def __init__(self, fleet: Fleet, store: Store, tasks: TaskQueue, setup: RoundSetup, outlets: Outlets) -> None:
        self.fleet, self.store, self.tasks, self.outlets = fleet, store, tasks, outlets
        fleet.attach_rounds(self)
        self.strategy, self.policy, self.pace = setup.strategy, setup.policy, setup.pace
        self.last_round = setup.last_round
        self.judge = Judge(setup, fleet.sessions)
        self.plans = Plans(setup.training, setup.policy)
        self.quorum = Quorum(self.policy.devices, lambda: outlets.broadcast(fleet.hello_request()))
        self.selector = Selector(fleet.selection, self.policy.seed, store.rounds.last_selected)
        self.pacing = Pacing(setup.pace, fleet)
        bounds = Deadline(self.policy.soft_deadline_s, self.policy.hard_deadline_s)
        self.deadlines = [  # of each tier
            Deadlines(bounds, self.policy.min_deadline_s, self.policy.goal) for _ in range(fleet.selection.tiers + 1)
        ]
        self.last_round_s = 0.0  # how long the last committed round took
        self.version, committed, self.model = store.models.latest()
        self.number = committed + 1
        self.done = self.last_round is not None and committed >= self.last_round  # committed before a restart
        self.host = TaskHost(self)
        self.models = ServedModels(fleet.sessions.classes, self.policy.chunk_elements, outlets.publish)
        self.serve(self.version, self.model)
        self.begin_round()
        self.quorum.ask_for_hello()  # devices that stayed connected do not notice that the server is another one

    # ---- the policy

    @abstractmethod
    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to call again at the latest."""

    @property
    @abstractmethod
    def slot_granted(self) -> bool:
        """Whether there is a slot for every device that is selected."""

    @abstractmethod
    def cancel_assignments(self) -> None:
        """Await nothing from any device any longer."""

    @abstractmethod
    def next_plan_at(self) -> float:
        """Return from when on an idle device may expect a plan; now, if one may come at any time."""

    @abstractmethod
    def prepare_update(self, update: Update) -> Update | None:
        """Return the update as it is to be folded. None: it is not expected."""

    @abstractmethod
    def planned_at(self, device: str) -> float | None:
        """Return when the device was sent its plan. None: its time tells nothing about its speed."""

    @abstractmethod
    def after_fold(self, update: Update, folded: bool) -> None:
        """Note that an awaited update was folded or refused."""

    # ---- what the fleet asks

    @property
    def chunk_elements(self) -> int:
        """Number of elements in a chunk, of updates and models."""
        return self.policy.chunk_elements

    @property
    def encodings(self) -> int:
        """Mask of the encodings that the plan allows."""
        return self.plans.encodings

    def model_chunk(self, version: int, index: int) -> bytes | None:
        """Return a ModelChunk message of a model that is served."""
        return self.models.chunk(version, index)

    def fold_update(self, update: Update, crc32: int) -> Refusal | None:
        """Fold an update. None: done."""
        prepared = self.prepare_update(update)
        if prepared is None:
            return Refusal(RefusalReason.NotPlanned, "no update of this device is awaited")
        refusal = self._fold(prepared)
        if refusal is None:
            self._count(prepared, crc32)
        elif refusal.reason != RefusalReason.Closed:
            self._note_refused(update.device)
        self.after_fold(update, refusal is None)
        return refusal

    def _fold(self, update: Update) -> Refusal | None:
        """Give an update to the strategy, within its bounds. None: done."""
        bounded = self.judge.bounded(update, self.model)
        if isinstance(bounded, Refusal):
            return bounded
        try:
            folded = self.strategy.fold(self.accumulator, bounded)
        except Exception:
            self.judge.strategy_raised("fold", self.number)
            return FAILED
        return None if folded else NOT_FINITE

    def _note_refused(self, device: str) -> None:
        self.record.refused += 1
        self.fleet.penalties.note_refused(device)

    def device_refused(self, device: str, round: int) -> None:
        """Note that the device's update of that round was refused before it could be folded."""
        self._note_refused(device)
        self.device_withdrew(device, round)

    def _count(self, update: Update, crc32: int) -> None:
        """Count an update that was folded."""
        device = update.device
        self.receipts[device] = crc32
        self.record.count(update)
        if update.received is None:  # otherwise the upload was cut off
            self.fleet.penalties.clear(device)
        if not update.partial and (planned_at := self.planned_at(device)) is not None:
            seconds = self.times[device] = self.fleet.now - planned_at
            self.selector.note_reported(device, self.number, seconds, update.examples, update.loss)

    def come_back_s(self, device: str) -> float:
        """Return for how many seconds a device that says Hello need not expect a plan."""
        if self.assignment(device) is not None or self.tasks.plan_for(device) is not None:
            return 0.0
        return self.pacing.come_back_s(device, self.next_plan_at())

    # ---- for the policies

    def begin_round(self) -> None:
        """Start the account of the next round."""
        self.record = Record(self.number)
        self.plans.unanswered = 0
        self.times: dict[str, float] = {}
        self.receipts: dict[str, int] = {}
        self.judge.begin_round()
        self.accumulator = self.strategy.begin(self.model)

    def has_quorum(self, online: list[str], now: float) -> bool:
        """Return whether enough devices are online to start a round. If not, ask all devices for Hello when due."""
        return self.quorum.is_met(len(online), now)

    def learn_times(self, tier: int, overdue: dict[str, float]) -> None:
        """Adapt the deadline and what is known of devices. overdue: devices without an update after so many seconds."""
        for device, seconds in overdue.items():
            self.selector.note_overdue(device, seconds)
        if self.policy.adaptive:
            self.deadlines[tier].learn(list(self.times.values()), len(overdue))
        self.times = {}

    def commit(self, seconds: float) -> Record:
        """Make the round's model durable and count on to the next round; nothing is announced yet."""
        record = self.record
        record.seconds = self.last_round_s = seconds
        model = self.judge.result(self.accumulator, self.model, record.round)
        record.failure = self.judge.failure
        return self.commit_model(self.model if model is None else model, record, self.write)

    def commit_model(self, model: Model, record: Record, write: Callable[[Model, Record], int]) -> Record:
        """Make a model durable as the result of the present round. write: does so, and returns the model's version."""
        if self.outlets.evaluate is not None:
            record.metrics = self.outlets.evaluate(model)
        self.version = write(model, record)
        self.selector.note_saved()
        self.model = model
        self.done = self.last_round is not None and self.number >= self.last_round
        self.number += 1
        return record

    def write(self, model: Model, record: Record) -> int:
        """Make a model and its round's record durable; return its version."""
        return self.store.commit(record.round, model, asdict(record), selected=self.selector.unsaved)

    def begin_next_round(self, record: Record, in_use: frozenset[int] = frozenset()) -> None:
        """Begin the next round after a commit. in_use: versions that devices still start from."""
        self.serve(self.version, self.model)
        task_model = self.tasks.model_in_use
        self.models.keep_only({self.version} | in_use | (set() if task_model is None else {task_model}))
        self.begin_round()
        self.fleet.end_round()
        if self.outlets.on_commit is not None:
            self.outlets.on_commit(record)

    def serve(self, version: int, model: Model) -> None:
        """Serve a committed model to devices."""
        self.models.add(version, model, publish=not self.done)

    def commit_message(self, number: int) -> bytes:
        """Return the message that a round is committed."""
        return encode("Commit", round=number, model_version=self.version)


def is_foldable(slot: Slot, partial: bool) -> bool:
    """Tell whether an upload counts that a deadline cuts off: all of it unless damaged, or its chunks so far.

    partial: whether partial updates count.
    """
    if slot.missing == 0:
        return kernels.crc32(slot.update.data) == slot.crc32
    return partial and any(slot.received)


def cut_off(slot: Slot) -> Update:
    """Return the update of an upload that a deadline cuts off: the chunks that arrived."""
    return replace(slot.update, received=slot.received) if slot.missing else slot.update
