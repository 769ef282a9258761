# SPDX-License-Identifier: Apache-2.0
# Over 200 lines: the class is one state machine, and its transitions are easier to check side by side.
"""Synchronous rounds: all selected devices start from one model, and the round ends for all at once.

selecting -> training -> closing -> selecting of the next round, or of the same one when too few devices reported.
"""

from __future__ import annotations

import math
from enum import Enum

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.pace import next_meeting
from fedmote.fleet.slots import Slot
from fedmote.fleet.tiers import Tiers
from fedmote.learning.update import Update
from fedmote.model.layout import ROUNDING
from fedmote.rounds.cohort import Cohort
from fedmote.rounds.grace import Grace
from fedmote.rounds.machine import RESELECT_S, RoundMachine, cut_off, is_foldable
from fedmote.rounds.setup import Outlets, RoundSetup, TaskQueue
from fedmote.store.store import Store
from fedmote.wire.codec import encode

MOST_MS = 0xFFFF_FFFF  # that the wire can tell
RESUMING = 4  # hard deadlines that a round lasts at most while devices hold work that a former server asked for


class State(Enum):
    """State of the round."""

    SELECTING = "selecting"
    TRAINING = "training"
    CLOSING = "closing"


class SynchronousRounds(RoundMachine):
    """The synchronous policy.

    cohort: of the present attempt at the round. ever_planned: devices that have or had the round's plan, also before
    the round was opened again. deadline: of the cohort's plan. started: when the plan was sent, in seconds.
    """

    def __init__(self, fleet: Fleet, store: Store, tasks: TaskQueue, setup: RoundSetup, outlets: Outlets) -> None:
        self.state = State.SELECTING
        self._may_hold_work = store.rounds.begun  # devices may hold work on this round that a former server asked for
        self._selects_from: float | None = None
        self._grace = Grace()
        self._not_before = 0.0  # when the next round may start, in seconds
        self._closed_at: float | None = None  # when the goal was reached; None: it was not, in this round
        self._missed: dict[str, float] = {}  # devices that the last round ended without -> when its goal was reached
        super().__init__(fleet, store, tasks, setup, outlets)

    def begin_round(self) -> None:
        """Start the account of the next round."""
        super().begin_round()
        self.ever_planned: set[str] = set()
        self._assemble(Cohort())
        self.started = 0.0
        self.deadline = self.deadlines[0].present

    def _assemble(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.work: tuple[Assignment, ...] = ()  # of each class of devices

    # ---- what the fleet asks

    @property
    def slot_granted(self) -> bool:
        """Whether there is a slot for every selected device."""
        return len(self.cohort) <= self.fleet.limits.slots

    @property
    def closing_notice(self) -> bytes | None:
        """The ClosingNotice, for a device that missed it; None: the round is not closing."""
        if self.state is not State.CLOSING:
            return None
        left_ms = int(1000 * max(0.0, self._ends_at() - self.fleet.now))
        return encode("ClosingNotice", round=self.number, remaining_ms=min(left_ms, MOST_MS))

    def open_round(self, device: str) -> int:
        """Return the present round; it is the same for all devices."""
        return self.number

    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""
        awaited = self.state is not State.SELECTING and self.cohort.is_awaited(device)
        return self.work[self.fleet.sessions.class_of(device)] if awaited else None

    def may_be_assigned(self, device: str, round: int) -> bool:
        """Tell whether the device may still be given a plan of that round."""
        unplanned = device in self.cohort.outstanding and not self.cohort.was_planned(device)
        return round == self.number and (self.state is State.SELECTING or unplanned or self._may_join(device))

    def _may_join(self, device: str) -> bool:
        """Tell whether the device may hold work on this round although it is not selected now."""
        if self.cohort.is_known(device) or device in self.receipts:
            return False
        return self._may_hold_work or device in self.ever_planned or device in self.cohort.withdrawn

    def folded_crc32(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update if the present round has folded it."""
        return self.receipts.get(device) if round == self.number else None

    def committed_version(self, device: str, round: int) -> int | None:
        """Return the model version that an earlier round committed."""
        return self.store.version_of(round) if round < self.number else None

    def device_connected(self, device: str) -> None:
        """Let the device join the round if it holds work that this server, or a former one, asked for."""
        if self.state is State.SELECTING or not self._may_join(device):
            return
        if not self.fleet.sessions.holds_update(device, self.number):
            return
        if device in self.cohort.withdrawn:  # its Withdraw came late, or crossed the plan
            self.cohort.take_back(device)
        else:
            self.cohort.join(device)
            self.record.selected += 1
        self.ever_planned.add(device)

    def device_lost(self, device: str) -> None:
        """Note that the device's link broke."""
        if self.state is not State.SELECTING:
            self.cohort.drop(device)

    def device_withdrew(self, device: str, round: int) -> None:
        """Note that the device will not do the work of that round."""
        if round != self.number:
            return
        self.ever_planned.discard(device)
        if self.state is not State.SELECTING and device in self.cohort.outstanding:
            self.cohort.withdraw(device)

    def device_refused(self, device: str, round: int) -> None:
        """Note that the device's update was refused; its next one of the same round would be, too."""
        super().device_refused(device, round)
        if round == self.number and self.state is not State.SELECTING:
            self.cohort.refuse(device)

    def device_late(self, device: str, round: int) -> None:
        """Note that the device offers its update after its round: it was not silent, and grace should be longer."""
        closed_at = self._missed.pop(device, None)
        if closed_at is not None and round == self.number - 1:
            self._grace.note_late(device, self.fleet.now - closed_at)
            self.fleet.penalties.clear(device)

    # ---- the fold

    def prepare_update(self, update: Update) -> Update | None:
        """Return the update unchanged. None: it is not expected."""
        return update if update.device in self.cohort.outstanding else None

    def planned_at(self, device: str) -> float | None:
        """Return when the plan was sent. None: the device had done the work before."""
        return None if device in self.cohort.holders else self.started

    def after_fold(self, update: Update, folded: bool) -> None:
        """Note that the device has reported, or that its update was refused."""
        if folded:
            self.cohort.outstanding.discard(update.device)
        else:
            self.cohort.refuse(update.device)
            self.ever_planned.discard(update.device)

    # ---- time

    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to call again at the latest."""
        self.fleet.now = now
        number = self.number
        if self.state is State.SELECTING:
            self._select(now)
        if self.state is State.TRAINING:
            self._send_plans()
            if not self.cohort.outstanding or self.judge.failure:
                self._finish(now)
            elif self._should_close(now):
                self._close(now)
        if self.state is State.CLOSING and self._is_over(now):
            self._finish(now)
        return {
            State.SELECTING: now if self.number != number else now + RESELECT_S,
            State.TRAINING: self.started + self.deadline.soft_s,
            State.CLOSING: self._ends_at(),
        }[self.state]

    def _is_over(self, now: float) -> bool:
        """Tell whether a closing round ends now."""
        return not self.cohort.outstanding or bool(self.judge.failure) or now >= self._ends_at()

    def _should_close(self, now: float) -> bool:
        """Tell whether the closing notice is due: the goal is reached, or the soft deadline has passed."""
        return self._is_goal_reached() or now >= self.started + self.deadline.soft_s

    def _is_goal_reached(self) -> bool:
        goal = math.ceil(self.policy.goal * len(self.cohort) - ROUNDING)
        return self.cohort.reported >= goal and self.cohort.all_planned

    def _ends_at(self) -> float:
        """Return when the round ends with what there is: at the hard deadline, or soon after its goal was reached.

        It ends later while work is outstanding that a former server asked for: that server may have sent a receipt.
        """
        resumed = self._may_hold_work and bool(self.cohort.holders & self.cohort.outstanding)
        latest = self.started + (RESUMING if resumed else 1) * self.deadline.hard_s
        if self._closed_at is None or resumed:
            return latest
        uploads = [slot for slot in self.fleet.uploads.slots.in_flight() if self._awaits(slot) and any(slot.received)]
        progressed = max((slot.progressed for slot in uploads), default=self._closed_at)
        return min(latest, self._grace.ends_at(self.started, self._closed_at, progressed))

    def _select(self, now: float) -> None:
        """Start the round, unless a task runs or too few devices are ready."""
        if now < self._resumed_at(now) or self.tasks.is_waiting(now):
            return
        online = self.fleet.sessions.ready()
        free = [device for device in online if not self._is_at_work(device)]
        if self.tasks.tick(now, self.host, free) or not self._may_start(online, now):
            return
        self._start([device for device in online if device not in self.receipts], now)

    def _may_start(self, online: list[str], now: float) -> bool:
        """Tell whether the round may start with these devices."""
        return not self.done and now >= self._not_before and self.has_quorum(online, now)

    def _resumed_at(self, now: float) -> float:
        """Return from when on devices are selected: after a restart, those that hold work get time to come back."""
        if self._selects_from is None:
            self._selects_from = now + (self.policy.resume_s if self._may_hold_work else 0.0)
        return self._selects_from

    def _start(self, ready: list[str], now: float) -> None:
        """Select devices among those that are ready, and send them the plan."""
        if not ready:
            return
        share = self.policy.select
        count = round(share) if share > 1 else max(1, round(share * len(ready)))
        holds = {device: self.fleet.sessions.holds_update(device, self.number) for device in ready}
        holders = [device for device in ready if holds[device]][:count]
        others = [device for device in ready if not holds[device]]
        slowest_s = self.deadlines[-1].present.soft_s
        tier, chosen = self.selector.choose(others, count - len(holders), self.number, slowest_s)
        if holders and self.fleet.selection.tiers > 1:
            tier = Tiers.PROFILING  # the holders may be of any speed
        self._assemble(Cohort.of(holders, chosen))
        self.judge.begin_attempt()
        self.deadline = self.deadlines[tier].present
        self.record.tier, self.record.soft_deadline_s = tier, self.deadline.soft_s
        self.record.selected = len(self.receipts) + len(self.cohort)
        self.store.rounds.note_begun()
        self.selector.note_selected(self.cohort.selected, self.number)
        self.started = now
        self._closed_at = None
        self.state = State.TRAINING
        self.work = self.plans.assignments_for(self.number, self.models[self.version], self.deadline, self.slot_granted)
        self._send_plans()

    def _is_at_work(self, device: str) -> bool:
        """Tell whether the device may have this round's work in hand, which a task's plan would replace.

        After a restart the former server's selection is unknown, so for one hard deadline any device may report.
        """
        since = self._selects_from or 0.0
        if self._may_hold_work and not self.done and self.fleet.now < since + self.policy.hard_deadline_s:
            return True
        holds = self.fleet.sessions.holds_update(device, self.number)
        return holds or device in self.ever_planned or device in self.receipts

    def _send_plans(self) -> None:
        """Send the plan to the devices that should have it by now: to all, or one at a time."""
        for device in self.cohort.selected[len(self.cohort.planned) :]:
            if self.policy.one_at_a_time and self.cohort.is_anyone_at_work():
                break
            self.cohort.plan(device)
            self.ever_planned.add(device)
            self.fleet.send_plan(device, self.work[self.fleet.sessions.class_of(device)])

    def _close(self, now: float) -> None:
        self.state = State.CLOSING
        self._closed_at = now if self._is_goal_reached() else None
        notice = self.closing_notice
        if notice is not None:
            self._tell(self.cohort.outstanding, notice)

    def _tell(self, devices: set[str], message: bytes) -> None:
        """Send a message to these devices, and to all others if that is cheaper, or if unknown ones may need it."""
        if self._may_hold_work or 2 * len(devices) >= len(self.fleet.sessions):
            self.outlets.broadcast(message)
        else:
            for device in sorted(devices):
                self.fleet.send_to(device, message)

    def _finish(self, now: float) -> None:
        """Fold what was cut off, and commit. With too few reports the round is opened again instead."""
        self._note_silent()
        slots = list(filter(self._counts_cut_off, self.fleet.uploads.slots.in_flight()))
        if len(self.receipts) + len(slots) >= self.policy.min_reports:
            for slot in slots:
                self.fold_update(cut_off(slot), slot.crc32)
        overdue = dict.fromkeys(self.cohort.late(set(self.times)), now - self.started)
        if len(self.receipts) < self.policy.min_reports and not self.judge.failure:
            self.learn_times(self.record.tier, overdue)
            if self.cohort.unanswered:
                self.plans.note_unanswered(self.number)
            self.state = State.SELECTING  # the round goes on with other devices; what was folded stays
            return
        self.record.dropped, self.record.withdrawn = len(self.cohort.dropped), len(self.cohort.withdrawn)
        told = self.ever_planned | self.cohort.holders | self.receipts.keys()
        record = self.commit(now - self.started)
        self.learn_times(record.tier, overdue)  # only now: a commit that failed is tried again
        self._tell(told, self.commit_message(record.round))
        self._may_hold_work = False
        self._not_before = self.started + self.policy.min_interval_s
        self.state = State.SELECTING
        self.begin_next_round(record)

    def _awaits(self, slot: Slot) -> bool:
        return slot.round == self.number and slot.update.device in self.cohort.outstanding

    def _note_silent(self) -> None:
        """Note the devices that did not report although they stayed online."""
        silent = self.cohort.outstanding - self.cohort.dropped
        self._missed = dict.fromkeys(silent, self._closed_at or self.fleet.now)
        for device in silent:
            self.fleet.penalties.note_silent(device)

    def _counts_cut_off(self, slot: Slot) -> bool:
        """Tell whether an upload that the deadline cuts off counts."""
        return self._awaits(slot) and is_foldable(slot, self.policy.partial)

    def cancel_assignments(self) -> None:
        """Do nothing: between rounds nothing is awaited, and begin_round() drops what was folded."""

    def next_plan_at(self) -> float:
        """Return when the next round is expected, or when devices meet while too few are ready."""
        now = self.fleet.now
        if self.state is not State.SELECTING:
            lasts_s = max(self.last_round_s or self.deadline.hard_s, self.policy.min_interval_s)
            return max(now, self.started + lasts_s)
        if self.fleet.sessions.has_ready(self.policy.devices):
            return max(now, self._not_before)
        return next_meeting(now, self.pace.meet_s)
