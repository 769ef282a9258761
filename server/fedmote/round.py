# SPDX-License-Identifier: Apache-2.0
"""Rounds: select devices, plan, wait, close, fold what came, commit. Time and I/O come from outside.

selecting -> training -> closing -> selecting of the next round (or of the same one, when too few reported)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from fedmote.codec import encode
from fedmote.session import Fleet, Slot
from fedmote.store import Store
from fedmote.strategy import Strategy, Update
from fedmote.wire.Encoding import Encoding
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.UpdateKind import UpdateKind
from fedmote_device import kernels

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
    """When a synchronous round starts, closes and ends.

    select: devices asked, as a share of those there (at most 1) or a number (above 1). devices: how many must be there
    before a round starts. goal: share of the selected whose reports bring the closing notice. soft_deadline_s,
    hard_deadline_s: since the plan. min_reports: fewer, and the round is opened again. resume_s: after a restart, time
    for devices that hold work to come back before the round is planned anew.
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
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


class Rounds:
    """One federation's rounds.

    broadcast: sends a message to all. publish: makes a model's chunks available, (version, messages).
    evaluate: called with each new model; its figures go into the log.
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
        evaluate: Callable[[NDArray[np.float32]], dict[str, float]] | None = None,
        on_commit: Callable[[Record], None] | None = None,
        last_round: int | None = None,
    ) -> None:
        self.fleet, self.store, self.strategy = fleet, store, strategy
        fleet.work = self
        self.training, self.policy = training, policy
        self.broadcast, self.publish = broadcast, publish
        self.evaluate, self.on_commit, self.last_round = evaluate, on_commit, last_round
        self.state = State.SELECTING
        self.version, done, self.model = store.latest()
        self._may_hold_work = store.begun
        self._selects_from: float | None = None
        self.number = done + 1
        self.done = last_round is not None and done >= last_round  # a server that died after its last commit
        self._reset()
        self._publish()
        self.broadcast(fleet.say_hello())  # devices that stayed connected do not notice that the server is another

    def _reset(self) -> None:
        self.record = Record(self.number)
        self.receipts: dict[str, int] = {}  # device -> CRC-32 of its folded update: what makes it count once
        self.accumulator = self.strategy.begin(self.model)
        self._deselect()

    def _deselect(self) -> None:
        self.selected: list[str] = []
        self.planned: list[str] = []  # those of them that were sent the plan
        self.withdrawn: set[str] = set()
        self.dropped: set[str] = set()
        self.plan = b""
        self.started = 0.0

    def _publish(self) -> None:
        data = self.model.astype("<f4").tobytes()
        self._crc32 = kernels.crc32(data)
        size = 4 * self.policy.chunk_elements
        self.chunks = [
            encode("ModelChunk", version=self.version, index=i, data=data[at : at + size])
            for i, at in enumerate(range(0, len(data), size))
        ]
        self.publish(self.version, self.chunks)

    # ---- what a session asks (fedmote.session.Work)

    @property
    def encodings(self) -> int:
        """Mask of what the plan lets a device send."""
        return sum(1 << getattr(Encoding, e.capitalize()) for e in self.policy.encodings)

    @property
    def crc32(self) -> int:
        """CRC-32 of the model that the round starts from."""
        return self._crc32

    @property
    def chunk_elements(self) -> int:
        """Elements of an update's chunk."""
        return self.policy.chunk_elements

    @property
    def slot_granted(self) -> bool:
        """Whether there is a slot for every selected device."""
        return len(self.selected) <= self.fleet.limits.slots

    def plan_for(self, device: str) -> bytes | None:
        """Return the plan of a selected device whose update is still awaited."""
        awaited = self.state is not State.SELECTING and device in self.planned and device in self._outstanding()
        return self.plan if awaited else None

    def may_plan(self, device: str) -> bool:
        """Whether the device may yet be asked for an update of the round in progress."""
        return self.state is State.SELECTING or (device in self.selected and device not in self.planned)

    @property
    def closing_notice(self) -> bytes | None:
        """The notice for a device that was away when all were told."""
        if self.state is not State.CLOSING:
            return None
        left = max(0.0, self.started + self.policy.hard_deadline_s - self.fleet.now)
        return encode("ClosingNotice", round=self.number, remaining_ms=int(1000 * left))

    def folded(self, device: str) -> int | None:
        """Return the CRC-32 of the device's update if the round has folded it."""
        return self.receipts.get(device)

    def committed(self, number: int) -> int | None:
        """Return the model version that came of an earlier round."""
        return self.store.version_of(number)

    def chunk(self, version: int, index: int) -> bytes | None:
        """Return a ModelChunk message of the model that the round starts from."""
        return self.chunks[index] if version == self.version and index < len(self.chunks) else None

    def take(self, update: Update, crc32: int) -> int | None:
        """Fold an update. None: done; otherwise the RefusalReason."""
        if update.device not in self._outstanding():
            return int(RefusalReason.NotPlanned)
        if update.partial and not self.policy.partial:
            self.withdrawn.add(update.device)
            return int(RefusalReason.Closed)
        if not self.strategy.fold(self.accumulator, update):
            self.withdrawn.add(update.device)
            return int(RefusalReason.NonFinite)
        self.receipts[update.device] = crc32
        self.record.reported += 1
        self.record.partial += update.partial
        self.record.examples += update.examples
        return None

    def gone(self, device: str) -> None:
        """The device's link broke."""
        if self.state is not State.SELECTING and device in self.selected:
            self.dropped.add(device)

    def withdrew(self, device: str) -> None:
        """The device will not do the round's work."""
        if self.state is not State.SELECTING and device in self._outstanding():
            self.withdrawn.add(device)

    def _outstanding(self) -> set[str]:
        return set(self.selected) - self.receipts.keys() - self.withdrawn

    # ---- time

    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to tick again at the latest."""
        self.fleet.now = now
        number = self.number
        if self.state is State.SELECTING:
            self._select(now)
        if self.state is State.TRAINING:
            self._plan_devices()
            goal = math.ceil(self.policy.goal * len(self.selected))
            if not self._outstanding():
                self._finish(now)
            elif (
                len(self.receipts.keys() & set(self.selected)) >= goal and len(self.planned) == len(self.selected)
            ) or now >= self.started + self.policy.soft_deadline_s:
                self._close(now)
        if self.state is State.CLOSING and (
            not self._outstanding() or now >= self.started + self.policy.hard_deadline_s
        ):
            self._finish(now)
        return {
            State.SELECTING: now if self.number != number else now + RESELECT_S,
            State.TRAINING: self.started + self.policy.soft_deadline_s,
            State.CLOSING: self.started + self.policy.hard_deadline_s,
        }[self.state]

    def _select(self, now: float) -> None:
        if self._selects_from is None:
            self._selects_from = now + (self.policy.resume_s if self._may_hold_work else 0.0)
        if now < self._selects_from:
            return
        there = self.fleet.ready()
        ready = [device for device in there if device not in self.receipts]
        if self.done or len(there) < self.policy.devices or not ready:
            return
        share = self.policy.select
        count = round(share) if share > 1 else max(1, round(share * len(ready)))
        order = np.random.default_rng([self.policy.seed, self.number]).permutation(len(ready))
        drawn = sorted(
            (ready[i] for i in order), key=lambda d: not self.fleet.holds(d, self.number)
        )  # their work is done
        self._deselect()
        self.selected = sorted(drawn[:count])
        self.record.selected = len(self.receipts) + len(self.selected)
        self.store.begin()
        self.started = now
        self.state = State.TRAINING
        self.plan = self._encode_plan()
        self._plan_devices()

    def _plan_devices(self) -> None:
        """Send the plan to those who are to have it by now."""
        outstanding = self._outstanding()
        for device in self.selected[len(self.planned) :]:
            if self.policy.one_at_a_time and outstanding.intersection(self.planned):
                break
            self.planned.append(device)
            self.fleet.plan(device, self.plan)

    def _encode_plan(self) -> bytes:
        return encode(
            "Plan",
            round=self.number,
            model_version=self.version,
            model_elements=self.model.size,
            model_crc32=self.crc32,
            model_chunk_elements=self.policy.chunk_elements,
            update_chunk_elements=self.policy.chunk_elements,
            encodings=self.encodings,
            kinds=1 << UpdateKind.Weights | 1 << UpdateKind.Delta,
            partial_allowed=self.policy.partial,
            slot_granted=self.slot_granted,
            seed=int(np.random.default_rng([self.policy.seed, self.number, 1]).integers(1 << 32)),
            soft_deadline_ms=int(1000 * self.policy.soft_deadline_s),
            hard_deadline_ms=int(1000 * self.policy.hard_deadline_s),
            **asdict(self.training),
        )

    def _close(self, now: float) -> None:
        self.state = State.CLOSING
        notice = self.closing_notice
        if notice is not None:
            self.broadcast(notice)

    def _finish(self, now: float) -> None:
        cut_off = [slot for slot in self.fleet.slots() if self._foldable(slot)]
        if len(self.receipts) + len(cut_off) >= self.policy.min_reports:
            for slot in cut_off:
                self._take_cut_off(slot)
        if len(self.receipts) < self.policy.min_reports:
            self.state = State.SELECTING  # the same round goes on with others; what was folded or came stays
            return
        self.fleet.end_round()
        self.model = self.strategy.finish(self.accumulator)
        self.record.dropped, self.record.withdrawn = len(self.dropped), len(self.withdrawn)
        self.record.seconds = now - self.started
        if self.evaluate is not None:
            self.record.metrics = self.evaluate(self.model)
        self.version = self.store.commit(self.number, self.model, asdict(self.record))
        self.broadcast(encode("Commit", round=self.number, model_version=self.version))
        record = self.record
        self.done = self.last_round is not None and self.number >= self.last_round
        self.number += 1
        self.state = State.SELECTING
        self._reset()
        if not self.done:
            self._publish()
        if self.on_commit is not None:
            self.on_commit(record)

    def _foldable(self, slot: Slot) -> bool:
        """Tell whether an upload that the deadline cut off counts: what came of it, or all of it, unless damaged."""
        if slot.round != self.number or slot.update.device not in self._outstanding():
            return False
        if slot.missing == 0:
            return kernels.crc32(slot.update.data) == slot.crc32
        return self.policy.partial and any(slot.received)

    def _take_cut_off(self, slot: Slot) -> None:
        cut = {name: getattr(slot.update, name) for name in Update.__slots__}
        if slot.missing:
            cut["received"] = slot.received
        self.take(Update(**cut), slot.crc32)
