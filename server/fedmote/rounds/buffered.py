# SPDX-License-Identifier: Apache-2.0
# Over 200 lines: the class is one state machine, and its transitions are easier to check side by side.
"""Asynchronous rounds: devices come and go by themselves, and each `buffer` updates make a model.

FedBuff (Nguyen et al. 2022, arXiv:2106.06639, algorithm 1), and what a restart needs: who was selected for which round,
and whose update a committed model holds, is durable before it is said.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.pace import next_meeting
from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote.rounds.machine import RESELECT_S, RoundMachine, cut_off, is_foldable
from fedmote.rounds.open_work import DeviceWork, OpenWork
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup, TaskQueue
from fedmote.store.store import Store
from fedmote.wire.codec import encode

SESSIONS_PER_S = 20_000  # sessions looked at each second, in search of devices to select, while others are at work
FEW_SESSIONS = 1000  # with fewer, they are looked at whenever a message came


class BufferedRounds(RoundMachine):
    """The asynchronous policy: a device starts from the newest model when it is selected.

    A round is what is folded between two commits. An update counts in the round that is open when it arrives, unless
    more than policy.max_staleness rounds were committed since its plan; its staleness s discounts it by (1 + s) **
    -policy.staleness_exponent. A device counts at most once in a round. Its plan bears the number of the round that was
    open when it was selected. A round ends with fewer than `buffer` updates when no device that is online can add one.
    open_work: devices that have a plan. counted: for each device in `receipts` the round of its plan. started: when the
    round began, in seconds; None: before the first tick.
    """

    def __init__(self, fleet: Fleet, store: Store, tasks: TaskQueue, setup: RoundSetup, outlets: Outlets) -> None:
        self.open_work = OpenWork()
        self.started: float | None = None
        self._search_at = 0.0  # when the next search for devices is due, if one was put off
        self._search_put_off = False
        self._forgive_at = 0.0
        super().__init__(fleet, store, tasks, setup, outlets)
        self._restore_open_work()

    def _restore_open_work(self) -> None:
        """Await what a former server asked for, unless it has become too old."""
        by_round: dict[int, tuple[Assignment, ...]] = {}
        for device, number in self.store.assignments.open_since(self.number - self.policy.max_staleness):
            version = number  # round n starts from model n
            if version not in self.models:
                if not self.store.models.has(version):  # max_staleness was less; the device was told so
                    continue
                self.serve(version, self.store.models.get(version))
            base = self.models[version]
            if number not in by_round:
                by_round[number] = self.plans.assignments_for(
                    number, base, self.deadlines[-1].present, self.slot_granted
                )
            self.open_work.restore(device, DeviceWork(number, by_round[number], base, None, 0.0))

    def begin_round(self) -> None:
        """Start the account of the next round."""
        super().begin_round()
        self.counted: dict[str, int] = {}
        self.withdrawn: set[str] = set()
        self.dropped: set[str] = set()
        self.staleness = 0

    # ---- what the fleet asks

    @property
    def slot_granted(self) -> bool:
        """Whether there is a slot for every device that is at work at a time."""
        return self._concurrency(len(self.fleet.sessions)) <= self.fleet.limits.slots

    @property
    def closing_notice(self) -> bytes | None:
        """None: each device knows its own deadline from its plan."""
        return None

    def open_round(self, device: str) -> int:
        """Return the round of the device's plan while its work may count, else the one it may be selected for."""
        work = self.open_work.get(device)
        return work.round if work is not None else self.counted.get(device, self.number)

    def assignment(self, device: str) -> Assignment | None:
        """Return what is awaited of the device; None: nothing."""
        work = self.open_work.get(device)
        return None if work is None else work.by_class[self.fleet.sessions.class_of(device)]

    def may_be_assigned(self, device: str, round: int) -> bool:
        """Return False: assignments are durable, so an update that is not awaited never will be."""
        return False

    def folded_crc32(self, device: str, round: int) -> int | None:
        """Return the CRC-32 of the device's update of that round if it is folded but not committed yet."""
        return self.receipts.get(device) if self.counted.get(device) == round else None

    def committed_version(self, device: str, round: int) -> int | None:
        """Return the model version that holds the device's update of that round."""
        work = self.open_work.get(device)
        if work is not None and work.round == round:
            return None
        return self.store.assignments.version_with(device, round)

    def device_connected(self, device: str) -> None:
        """Do nothing: who was selected for which round is known, also after a restart."""

    def device_lost(self, device: str) -> None:
        """Note that the device's link broke."""
        if device in self.open_work:
            self.dropped.add(device)

    def device_withdrew(self, device: str, round: int) -> None:
        """Note that the device will not do the work of that round; it is not selected again before the next one."""
        work = self.open_work.get(device)
        if work is not None and work.round == round:
            self.store.assignments.remove(device)
            self.open_work.end(device)
            self.withdrawn.add(device)

    def device_late(self, device: str, round: int) -> None:
        """Do nothing: no round waits for its last devices."""

    # ---- the fold

    def prepare_update(self, update: Update) -> Update | None:
        """Return the update, discounted by its staleness. None: it is not expected."""
        work = self.open_work.get(update.device)
        if work is None:
            return None
        staleness = self.number - work.round
        if not staleness:
            return update
        discount = float((1 + staleness) ** -self.policy.staleness_exponent)
        return replace(update, base=work.base.model, discount=discount)

    def planned_at(self, device: str) -> float | None:
        """Return when the device was sent its plan; None: that is not known."""
        work = self.open_work.get(device)
        return None if work is None else work.planned_at

    def after_fold(self, update: Update, folded: bool) -> None:
        """Note that the device's update was folded or refused."""
        device = update.device
        work = self.open_work.by_device[device]
        if work.overdue_noted:  # the selector has learned its time already
            self.times.pop(device, None)
        if folded:
            self.open_work.end(device)
            self.counted[device] = work.round
            self.staleness += self.number - work.round
        else:
            self.device_withdrew(device, work.round)

    # ---- time

    def tick(self, now: float) -> float:
        """Do what is due at `now` (seconds, monotonic); return when to call again at the latest."""
        self.fleet.now = now
        if self.started is None:
            self.started = now
            for device, work in self.open_work:  # from before a restart: their time begins anew
                work.overdue_at = now + self.policy.hard_deadline_s
                self.open_work.start(device, work)
        if self._is_full():
            self._finish(now)
        self.open_work.expire(now)
        working = len(self.open_work.working)
        self._tick_tasks(now, idle=not working and not self.receipts)
        selected = self._select(now, working)
        if self.receipts and not working and not selected:
            self._finish(now)
            self._select(now, 0)
        due = self.open_work.expire(now)
        if due is None:
            return now + RESELECT_S
        return min(due, self._search_at) if self._search_put_off else due

    def _is_full(self) -> bool:
        """Tell whether the round has its updates, or has failed."""
        return len(self.receipts) >= self.policy.buffer or bool(self.judge.failure)

    def _tick_tasks(self, now: float, idle: bool) -> None:
        """Let a task run while no device is at work and nothing waits to be committed."""
        if not idle:
            self.tasks.expire(now, self._free)
        elif not self.tasks.is_waiting(now):
            self.tasks.tick(now, self.host, self._free())

    def _free(self) -> list[str]:
        """Return the devices that are ready and have no work in hand."""
        return [device for device in self.fleet.sessions.ready() if device not in self.open_work]

    def _concurrency(self, online: int) -> int:
        """Return how many devices should work at a time."""
        share = self.policy.select
        return round(share) if share > 1 else max(1, round(share * online))

    def _select(self, now: float, working: int) -> int:
        """Select as many devices as may work besides `working` others; return their number."""
        if not self._may_search(now, working):
            return 0
        online = self.fleet.sessions.ready()
        if not working and not self.receipts:
            self._forgive_withdrawn(now)
        free = self._concurrency(len(online)) - working
        if self._task_needs(online) or self.done or free <= 0:
            return 0
        if not working and not self.receipts and not self.has_quorum(online, now):
            return 0
        return self._assign(list(filter(self._may_start, online)), free, now)

    def _forgive_withdrawn(self, now: float) -> None:
        """Let devices that withdrew, were refused or are overdue be selected again, since nothing else is going on."""
        if self.withdrawn and now >= self._forgive_at:
            self.withdrawn.clear()
            self._forgive_at = now + RESELECT_S
            self.judge.begin_attempt()
        ready = self.fleet.sessions.ready()
        late = now - self.policy.hard_deadline_s
        if ready and all((work := self.open_work.get(d)) is not None and work.overdue_at <= late for d in ready):
            for device in ready:  # all who are connected are long overdue: the plan is nothing new to them
                self.store.assignments.remove(device)
                self.open_work.end(device)
            self.plans.note_unanswered(self.number)

    def _task_needs(self, online: list[str]) -> bool:
        """Tell whether a task should run before devices are selected; it waits until those at work are done."""
        return self.tasks.blocks_training([d for d in online if d not in self.open_work or d in self.open_work.working])

    def _may_start(self, device: str) -> bool:
        """Tell whether a ready device may be selected in this round."""
        return device not in self.open_work and device not in self.receipts and device not in self.withdrawn

    def _may_search(self, now: float, working: int) -> bool:
        """Tell whether to search for devices now.

        A search lists all sessions; with many it is not made for each message.
        """
        sessions = len(self.fleet.sessions)
        self._search_put_off = False
        if self.tasks.is_waiting(now) or (working and self._concurrency(sessions) <= working):
            return False
        self._search_put_off = bool(working) and now < self._search_at
        if self._search_put_off:
            return False
        self._search_at = now + sessions / SESSIONS_PER_S if sessions > FEW_SESSIONS else now
        return True

    def _assign(self, ready: list[str], count: int, now: float) -> int:
        """Select up to `count` of the devices that are ready, and send them the plan; return their number."""
        if not ready:
            return 0
        deadline = self.deadlines[-1].present
        _, chosen = self.selector.choose(ready, count, self.number, deadline.soft_s, self.record.selected)
        self.store.assignments.add(chosen, self.number)
        self.selector.note_selected(chosen, self.number)
        self.record.soft_deadline_s = deadline.soft_s
        base = self.models[self.version]
        by_class = self.plans.assignments_for(self.number, base, deadline, self.slot_granted)
        for device in chosen:
            self.open_work.start(device, DeviceWork(self.number, by_class, base, now, now + deadline.hard_s))
            self.fleet.send_plan(device, by_class[self.fleet.sessions.class_of(device)])
        self.record.selected += len(chosen)
        return len(chosen)

    def _finish(self, now: float) -> None:
        """Commit, tell the devices whose updates the model holds, and give up work that became too old."""
        last = self.number - self.policy.max_staleness  # a plan of this round or before is too old after the commit
        for slot in self.fleet.uploads.slots.in_flight():
            work = self.open_work.get(slot.update.device)
            if work is not None and work.round == slot.round <= last and is_foldable(slot, self.policy.partial):
                self.fold_update(cut_off(slot), slot.crc32)
        record = self.record
        record.dropped, record.withdrawn = len(self.dropped), len(self.withdrawn)
        record.staleness = self.staleness / max(1, len(self.receipts))
        counted = self.counted
        assert self.started is not None
        self.commit(now - self.started)
        self.learn_times(record.tier, self.open_work.note_overdue(now))  # only now: a commit that failed is tried again
        self.started = now
        for device, number in counted.items():
            self.fleet.send_to(device, encode("Commit", round=number, model_version=self.version))
        late = [device for device, work in self.open_work if work.round <= last]
        for device in late:
            self.fleet.drop_work(device, self.open_work.end(device).round)
        self.begin_next_round(record, frozenset(work.base.version for _, work in self.open_work))

    def write(self, model: Model, record: Record) -> int:
        """Make model, record and whose updates it holds durable, all or nothing; return the version."""
        return self.store.commit(record.round, model, asdict(record), self.counted, self.selector.unsaved)

    def cancel_assignments(self) -> None:
        """Await nothing from any device any longer."""
        self.open_work.clear()

    def next_plan_at(self) -> float:
        """Return when an idle device may expect a plan."""
        now, sessions = self.fleet.now, self.fleet.sessions
        if not self.open_work and not self.receipts and not sessions.has_ready(self.policy.devices):
            return next_meeting(now, self.pace.meet_s)
        if self.started is None or len(self.open_work.working) < self._concurrency(len(sessions)):
            return now
        return max(now, self.started + (self.last_round_s or self.deadlines[-1].present.hard_s))
