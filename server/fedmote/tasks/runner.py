# SPDX-License-Identifier: Apache-2.0
"""Runs tasks, one at a time, on devices that have no training to do. Only aggregates of a cohort come out.

A task selects its cohort, sends each device a plan, collects the results, and releases one aggregate or says why there
is none. What a single device said stays in memory until its plan is over, without its name, and goes nowhere else.
There is no noise: the minimum cohort and the bound on what one device adds are the only protection.
"""

from __future__ import annotations

import logging
import math
import secrets
import zlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from fedmote.errors import StoreError, StoreUnavailableError, TaskError
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.served_models import ClassModel, ServedModel
from fedmote.tasks.base import Result, TaskLimits
from fedmote.tasks.cohort import choose_cohort, devices_needed
from fedmote.tasks.evaluate import Evaluate, evaluated
from fedmote.tasks.query import Counted, Query, Steps
from fedmote.tasks.release import Release
from fedmote.tasks.requests import Request
from fedmote.tasks.rollback import RollBack
from fedmote.tasks.running import QueuedTask, RunningPlan
from fedmote.wire.Answer import Answer
from fedmote.wire.codec import encode
from fedmote.wire.Evaluation import Evaluation
from fedmote.wire.Task import Task

log = logging.getLogger(__name__)


class Host(Protocol):
    """What tasks need of the federation's rounds."""

    @property
    def number(self) -> int:
        """Number of the next round, which a task's plans bear."""
        ...

    @property
    def chunk_elements(self) -> int:
        """Number of elements in a chunk."""
        ...

    def serve_model(self, version: int) -> ServedModel:
        """Serve a committed model to devices; 0: the latest. StoreError: it is not kept."""
        ...

    def roll_back(self, version: int) -> int:
        """Commit an earlier model as the next version, and return that. StoreError: it is not kept."""
        ...

    def release(self, version: int) -> None:
        """Note that a model was rolled out to all devices. StoreError: it is not kept."""
        ...

    def keep_models(self, versions: set[int]) -> None:
        """Keep the models of a roll-out for as long as it takes. StoreError: one of them is not kept any longer."""
        ...


class TaskRunner:
    """A federation's tasks.

    draw: makes the seeds that tell one plan from another, also from plans before a restart. queue: tasks that wait.
    running: the plan that is out with its cohort; None: no task runs.
    """

    def __init__(
        self, fleet: Fleet, limits: TaskLimits, draw: Callable[[], int] = lambda: secrets.randbits(32)
    ) -> None:
        self.fleet, self.limits, self.draw = fleet, limits, draw
        fleet.tasks = self
        self.queue: deque[QueuedTask] = deque()
        self.running: RunningPlan | None = None

    def submit(self, request: Request, done: Callable[[Result | TaskError], None]) -> QueuedTask:
        """Queue a task; `done` is called once, with its result or why there is none."""
        task = QueuedTask(request, done)
        self.queue.append(task)
        self.fleet.changed()
        return task

    def cancel(self, task: QueuedTask) -> None:
        """Remove a task from the queue when its caller no longer waits."""
        self.queue = deque(other for other in self.queue if other is not task)

    def stop(self) -> None:
        """Say of each task that is not done that the server stops."""
        if self.running is not None:
            self.queue.appendleft(self.running.task)
            self.running = None
        while self.queue:
            self.queue.popleft().done(TaskError("the server stopped; ask again when it runs"))

    # ---- what the rounds ask (fedmote.rounds.setup, TaskQueue)

    @property
    def model_in_use(self) -> int | None:
        """Version of the model that the running task needs; None: no task runs."""
        return None if self.running is None else self.running.version

    def is_waiting(self, now: float) -> bool:
        """Tell whether a task runs whose devices still have time, so that tick() would do nothing."""
        return self.running is not None and not self.running.is_over(now)

    def blocks_training(self, online: list[str]) -> bool:
        """Tell whether no training should begin: a task runs, or could run on these devices once they are free."""
        if self.running is not None or not self.queue:
            return self.running is not None
        return self._can_begin(self.queue[0], online)

    def tick(self, now: float, host: Host, free: list[str]) -> bool:
        """Do what is due. True: a task runs, and no training should begin. free: devices without any work."""
        while True:
            self.expire(now, lambda: free)
            if self.is_waiting(now):
                return True
            if self.running is not None:
                self._finish(now, host)
            elif self.queue and self._can_begin(self.queue[0], free):
                self._begin(now, host, free)
            else:
                return False

    def expire(self, now: float, free: Callable[[], list[str]]) -> None:
        """Give up tasks that waited for too long. free: returns what tick() is given."""
        for task in self.queue:
            if task.expires_at is None:
                task.expires_at = now + self.limits.wait_s
        while self.running is None and self.queue and (self.queue[0].expires_at or 0.0) <= now:
            late = self.queue.popleft()
            late.done(TaskError(
                f"not begun within {self.limits.wait_s:g} s: {len(self._able(late, free()))} devices were free, "
                f"{devices_needed(late.request, self.limits)} are needed"
            ))  # fmt: skip

    # ---- what the fleet asks (fedmote.fleet.coordinators, TaskCoordinator)

    def plan_for(self, device: str) -> bytes | None:
        """Return the plan that the device should have now; None: none."""
        if self.running is None or device not in self.running.awaited:
            return None
        return self.running.plans[self.fleet.sessions.class_of(device)]

    def take_result(self, device: str, result: Evaluation | Answer) -> None:
        """Take a device's result, if it is awaited and valid."""
        plan = self.running
        if plan is None or device not in plan.awaited or not plan.is_result_of(result):
            self.fleet.counters["unexpected"] += 1
            return
        plan.awaited.discard(device)
        why = plan.take(device, result, self.limits.max_per_device)
        if why is not None:
            self.fleet.counters["refused_results"] += 1
            log.warning("%s: its result of round %d is refused: %s", device, plan.round, why)

    def device_withdrew(self, device: str, round: int) -> None:
        """Note that the device will not do the task."""
        if self.running is not None and self.running.round == round:
            self.running.withdraw(device)

    # ---- one task

    def _able(self, task: QueuedTask, devices: list[str]) -> list[str]:
        """Return the devices that can do the task: an evaluation needs a device that holds the whole model."""
        if not isinstance(task.request, Evaluate):
            return devices
        return [device for device in devices if self.fleet.sessions.class_of(device) == 0]

    def _can_begin(self, task: QueuedTask, devices: list[str]) -> bool:
        return len(self._able(task, devices)) >= devices_needed(task.request, self.limits)

    def _begin(self, now: float, host: Host, free: list[str]) -> None:
        """Begin the first task of the queue. StoreUnavailableError: it is put back, and begun again later."""
        task = self.queue.popleft()
        request = task.request
        try:
            result = _ask_host(host, request)
        except StoreUnavailableError:
            self.queue.appendleft(task)
            raise
        except StoreError as error:
            task.done(TaskError(str(error)))
            return
        if isinstance(request, RollBack | Release):
            task.done(result)
            return
        cohort = choose_cohort(request, self.limits, self._able(task, free), self.draw)
        if isinstance(request, Evaluate):
            self._send(now, host, task, None, None, cohort)
        else:
            steps = request.steps()
            self._send(now, host, task, steps, next(steps), cohort)

    def _send(
        self, now: float, host: Host, task: QueuedTask, steps: Steps | None, query: Query | None, cohort: set[str]
    ) -> None:
        """Send the cohort a plan."""
        version = task.request.version if isinstance(task.request, Evaluate) else 0
        try:
            model = host.serve_model(version)
        except StoreError as error:
            task.done(TaskError(str(error)))
            return
        seed = self.draw()
        plans = tuple(self._encode_plan(host, part, query, seed) for part in model.by_class)
        expires_at = now + self.limits.answer_s
        self.running = RunningPlan(task, steps, query, host.number, model.version, seed, plans, cohort, expires_at)
        for device in sorted(cohort):
            self.fleet.send_to(device, plans[self.fleet.sessions.class_of(device)])

    def _encode_plan(self, host: Host, part: ClassModel, query: Query | None, seed: int) -> bytes:
        fields: dict[str, int | float] = {"task": Task.Evaluate}
        if query is not None:
            fields = {
                "task": Task.Query, "query_field": zlib.crc32(query.field.encode()), "query_low": query.low,
                "query_high": query.high, "query_bins": query.bins,
            }  # fmt: skip
        chunk, milliseconds = host.chunk_elements, int(1000 * self.limits.answer_s)
        return encode(
            "Plan", round=host.number, model_version=part.version, model_elements=part.elements,
            model_crc32=part.crc32, model_chunk_elements=chunk, update_chunk_elements=chunk, seed=seed,
            soft_deadline_ms=milliseconds // 2, hard_deadline_ms=milliseconds, **fields,
        )  # fmt: skip

    def _finish(self, now: float, host: Host) -> None:
        """End the running plan: release what came of it, or send the query's next plan."""
        plan, self.running = self.running, None
        assert plan is not None
        least = self.limits.min_cohort
        if plan.results < max(1, least):
            plan.task.done(TaskError(
                f"{plan.results} of {plan.asked} devices gave a result; with fewer than {least} nothing is released"
            ))  # fmt: skip
        elif plan.steps is None:
            plan.task.done({
                "version": plan.version, **evaluated(plan.evaluations, least), "participation": plan.participation,
            })  # fmt: skip
        else:
            counts = np.array([counts for counts, _ in plan.answers])
            common = np.count_nonzero(counts, axis=0) >= max(1, least)
            total = math.fsum(total for _, total in plan.answers)
            try:
                query = plan.steps.send(Counted(plan.results, counts.sum(axis=0), total, common))
            except StopIteration as end:
                plan.task.done({**end.value, "participation": plan.participation})
            else:
                self._send(now, host, plan.task, plan.steps, query, plan.answered)


def _ask_host(host: Host, request: Request) -> Result:
    """Do what a task asks of the rounds; return the result of a task that asks no device, {} for others."""
    if isinstance(request, RollBack):
        return {"version": host.roll_back(request.version), "rolled_back_to": request.version}
    if isinstance(request, Release):
        host.release(request.version)
        return {"released": request.version}
    if isinstance(request, Evaluate) and request.against:
        host.keep_models({request.version, request.against})
    return {}
