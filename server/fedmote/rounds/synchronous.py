# SPDX-License-Identifier: Apache-2.0
"""The synchronous policy: all selected devices start from one model, and the round ends for all at once."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.pace import next_meeting
from fedmote.fleet.selection import Tiers
from fedmote.fleet.uploads import Slot
from fedmote.learning.strategy import Strategy
from fedmote.learning.update import Update
from fedmote.model.layout import ROUNDING
from fedmote.rounds.machine import MOST_MS, RESELECT_S, Machine, cut_off
from fedmote.rounds.policy import Policy, Training
from fedmote.store.store import Store
from fedmote.wire.codec import encode
from fedmote.wire.RefusalReason import RefusalReason

RESUMING = 4  # hard deadlines that a round lasts at most for devices whose work of it a former server had asked for


class State(Enum):
    """Of the round."""

    SELECTING = "selecting"
    TRAINING = "training"
    CLOSING = "closing"


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
