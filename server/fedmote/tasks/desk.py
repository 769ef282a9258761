# SPDX-License-Identifier: Apache-2.0
"""Tasks besides fit: evaluate a model where the data is, ask the fleet a query. Only aggregates of a cohort come back.

A task selects its cohort, sends each device a plan, collects what comes and releases one result, or says why there is
none. What a single device said is in memory until its plan is over, without its name, and goes nowhere else.

All queries stand on one thing that a device does: a histogram of a field over a range. Quantiles and heavy hitters
refine it on the server, range by range: the hierarchical histograms of Cormode, Kulkarni and Srivastava 2019
("Answering Range Queries Under Local Differential Privacy", VLDB 12(10)); that only branches with enough support are
followed is TrieHH's idea (Zhu et al. 2020, "Federated Heavy Hitters Discovery with Differential Privacy", AISTATS).
There is no noise here: the protection is the least cohort and the bound on what one device adds.
"""

from __future__ import annotations

import math
import secrets
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import StoreError, StoreUnavailableError, TaskError
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.served_models import Base
from fedmote.model.layout import ROUNDING
from fedmote.tasks.base import Result, TaskLimits
from fedmote.tasks.evaluate import Evaluate, Evaluated, evaluated, read_evaluation
from fedmote.tasks.query import Counted, Query, Steps, read_answer
from fedmote.tasks.release import Release
from fedmote.tasks.requests import Request
from fedmote.tasks.rollback import RollBack
from fedmote.wire.codec import encode
from fedmote.wire.Task import Task


class Host(Protocol):
    """What tasks need of the federation's rounds (fedmote.round.Machine)."""

    number: int

    @property
    def chunk_elements(self) -> int:
        """Elements of a chunk."""
        ...

    def lend(self, version: int) -> Base:
        """Have a committed model ready for devices; 0: the latest. StoreError: it is not kept."""
        ...

    def roll_back(self, version: int) -> int:
        """Commit an earlier model anew; return its new version. StoreError: it is not kept."""
        ...

    def release(self, version: int) -> None:
        """Note that a model was rolled out to all. StoreError: it is not kept."""
        ...

    def hold(self, versions: set[int]) -> None:
        """Keep the models of a roll-out for as long as it takes. StoreError: one of them is not kept."""
        ...


@dataclass(slots=True)
class Asked:
    """A task that waits for its turn."""

    request: Request
    done: Callable[[Result | TaskError], None]
    until: float | None = None  # it begins before, or not at all; counted from the first tick after it was asked


@dataclass(slots=True)
class _Running:
    """One plan of a task, out with its cohort."""

    asked: Asked
    steps: Steps | None  # None: an evaluation
    query: Query | None
    round: int
    version: int
    seed: int
    plans: tuple[bytes, ...]  # of each class of devices
    awaited: set[str]
    until: float
    answered: set[str] = field(default_factory=set)  # who is in the cohort of the next plan
    evaluations: list[Evaluated] = field(default_factory=list)
    answers: list[tuple[NDArray[np.float64], float]] = field(default_factory=list)


def _is_for(run: _Running, name: str, body: Any) -> bool:
    """Tell whether a result is of this plan. Devices of 0.1.0 know no seed: round and model say what they evaluated."""
    if (name == "Answer") != (run.query is not None) or body.Round() != run.round:
        return False
    return bool(
        body.Seed() == run.seed or (name == "Evaluation" and body.Seed() == 0 and body.ModelVersion() == run.version)
    )


class Tasks:
    """A federation's tasks, one at a time. A task's plans bear the number of the round that comes next.

    draw: makes the seeds that tell one plan from another, also from those before a restart.
    """

    def __init__(
        self, fleet: Fleet, limits: TaskLimits, draw: Callable[[], int] = lambda: secrets.randbits(32)
    ) -> None:
        self.fleet, self.limits, self.draw = fleet, limits, draw
        fleet.tasks = self
        self.queue: deque[Asked] = deque()
        self.running: _Running | None = None

    def ask(self, request: Request, done: Callable[[Result | TaskError], None]) -> Asked:
        """Have a task done; `done` is called once, with its result or why there is none."""
        asked = Asked(request, done)
        self.queue.append(asked)
        self.fleet.changed()
        return asked

    def drop(self, asked: Asked) -> None:
        """Do not begin a task that nobody waits for any longer."""
        self.queue = deque(other for other in self.queue if other is not asked)

    def hold(self, there: list[str]) -> bool:
        """Tell whether no training is to begin: a task runs, or would with these once none of them is at work."""
        if self.running is not None or not self.queue:
            return self.running is not None
        return len(self._fit(there, self.queue[0])) >= self._needed(self.queue[0])

    @property
    def version(self) -> int | None:
        """The model that is lent to the running task."""
        return None if self.running is None else self.running.version

    def tick(self, now: float, host: Host, free: list[str]) -> bool:
        """Do what is due; True: a task runs, and no training is to begin. free: devices without any work in hand."""
        while True:
            self.expire(now, lambda: free)
            if self.running is not None:
                if self.running.awaited and now < self.running.until:
                    return True
                self._finish(now, host)
            elif self.queue and len(self._fit(free, self.queue[0])) >= self._needed(self.queue[0]):
                self._start(now, host, self._fit(free, self.queue[0]))
            else:
                return False

    def waits(self, now: float) -> bool:
        """Tell whether a task runs whose devices have time yet: tick() would do nothing, and needs no list of them."""
        return self.running is not None and bool(self.running.awaited) and now < self.running.until

    def expire(self, now: float, free: Callable[[], list[str]]) -> None:
        """Give up what waited for too long. free: returns what tick() is given."""
        for asked in self.queue:
            asked.until = now + self.limits.wait_s if asked.until is None else asked.until
        while self.running is None and self.queue and (self.queue[0].until or 0.0) <= now:
            late = self.queue.popleft()
            late.done(TaskError(
                f"not begun within {self.limits.wait_s:g} s: {len(self._fit(free(), late))} devices were free, "
                f"{self._needed(late)} are needed"
            ))  # fmt: skip

    def stop(self) -> None:
        """Say that nothing comes of what is not done."""
        if self.running is not None:
            self.queue.appendleft(self.running.asked)
            self.running = None
        while self.queue:
            self.queue.popleft().done(TaskError("the server stopped; ask again when it runs"))

    def _fit(self, free: list[str], asked: Asked) -> list[str]:
        """Return who can answer: to evaluate the model a device has to hold the whole of it."""
        if not isinstance(asked.request, Evaluate):
            return free
        return [device for device in free if self.fleet.size_of(device) == 0]

    def _needed(self, asked: Asked) -> int:
        if isinstance(asked.request, RollBack | Release):
            return 0
        return max(1, self.limits.min_cohort, asked.request.cohort)

    def _start(self, now: float, host: Host, free: list[str]) -> None:
        asked = self.queue.popleft()
        request = asked.request
        if isinstance(request, RollBack | Release):
            self._obey(host, asked, request)
            return
        if isinstance(request, Evaluate) and request.against:
            try:
                host.hold({request.version, request.against})
            except StoreUnavailableError:
                self.queue.appendleft(asked)
                raise
            except StoreError as error:
                asked.done(TaskError(str(error)))
                return
        count = self._asked_of(len(free), asked)
        if isinstance(request, Evaluate) and request.order:
            first = sorted(free, key=lambda device: zlib.crc32(f"{request.order}/{device}".encode()))
        else:
            first = [free[i] for i in np.random.default_rng(self.draw()).permutation(len(free))]
        if isinstance(request, Evaluate):
            self._send(now, host, asked, None, None, set(first[:count]))
        else:
            steps = request.steps()
            self._send(now, host, asked, steps, next(steps), set(first[:count]))

    def _asked_of(self, free: int, asked: Asked) -> int:
        """Return how many of those that are free are asked.

        Of two results, of all and of all but a few, the difference would be what those few said. So a cohort leaves out
        nobody or at least as many as make one, and those of one order, which hold each other, differ by as many.
        """
        request, least = asked.request, max(1, self.limits.min_cohort)
        count = request.cohort or free
        if isinstance(request, Evaluate) and not request.cohort:
            count = max(self._needed(asked), math.ceil(request.share * free - ROUNDING))
        if isinstance(request, Evaluate) and request.order:
            count = -(-count // least) * least
        return free if free - count < least else count

    def _obey(self, host: Host, asked: Asked, request: RollBack | Release) -> None:
        """Do what asks no device."""
        try:
            if isinstance(request, RollBack):
                result = {"version": host.roll_back(request.version), "rolled_back_to": request.version}
            else:
                host.release(request.version)
                result = {"released": request.version}
        except StoreUnavailableError:
            self.queue.appendleft(asked)
            raise
        except StoreError as error:
            asked.done(TaskError(str(error)))
        else:
            asked.done(result)

    def _send(
        self, now: float, host: Host, asked: Asked, steps: Steps | None, query: Query | None, cohort: set[str]
    ) -> None:
        """Send the cohort a plan."""
        version = asked.request.version if isinstance(asked.request, Evaluate) else 0
        try:
            model = host.lend(version)
        except StoreError as error:
            asked.done(TaskError(str(error)))
            return
        what: dict[str, Any] = {"task": Task.Evaluate}
        if query is not None:
            what = {
                "task": Task.Query, "query_field": zlib.crc32(query.field.encode()), "query_low": query.low,
                "query_high": query.high, "query_bins": query.bins,
            }  # fmt: skip
        seed = self.draw()
        chunk, milliseconds = host.chunk_elements, int(1000 * self.limits.answer_s)
        plans = tuple(
            encode(
                "Plan", round=host.number, model_version=image.version, model_elements=image.elements,
                model_crc32=image.crc32, model_chunk_elements=chunk, update_chunk_elements=chunk, seed=seed,
                soft_deadline_ms=milliseconds // 2, hard_deadline_ms=milliseconds, **what,
            )
            for image in model.images
        )  # fmt: skip
        self.running = _Running(
            asked, steps, query, host.number, model.version, seed, plans, cohort, now + self.limits.answer_s
        )
        for device in sorted(cohort):
            self.fleet.tell(device, plans[self.fleet.size_of(device)])

    def _finish(self, now: float, host: Host) -> None:
        """A plan is over: release what came of it, or go on with the next."""
        run, self.running = self.running, None
        assert run is not None
        came = len(run.evaluations) + len(run.answers)
        if came < max(1, self.limits.min_cohort):
            run.asked.done(TaskError(
                f"{came} devices gave a result; with fewer than {self.limits.min_cohort} nothing is released"
            ))  # fmt: skip
        elif run.steps is None:
            run.asked.done({"version": run.version, **evaluated(run.evaluations, self.limits.min_cohort)})
        else:
            each = np.array([counts for counts, _ in run.answers])
            common = np.count_nonzero(each, axis=0) >= max(1, self.limits.min_cohort)
            counted = Counted(came, each.sum(axis=0), math.fsum(total for _, total in run.answers), common)
            try:
                query = run.steps.send(counted)
            except StopIteration as end:
                run.asked.done(end.value)
            else:
                self._send(now, host, run.asked, run.steps, query, run.answered)

    # ---- what a session tells (fedmote.session.TaskDesk)

    def plan(self, device: str) -> bytes | None:
        """Return the plan that the device is to have now; None: none."""
        if self.running is None or device not in self.running.awaited:
            return None
        return self.running.plans[self.fleet.size_of(device)]

    def result(self, device: str, name: str, body: Any) -> None:
        """Take an Evaluation or Answer, if it is awaited and makes sense."""
        run = self.running
        if run is None or device not in run.awaited or not _is_for(run, name, body):
            self.fleet.counters["unexpected"] += 1
            return
        run.awaited.discard(device)
        most, bound = self.fleet.limits.max_examples, self.limits.max_per_device
        if run.query is None:
            evaluation = read_evaluation(body, run.version, most, bound)
            if evaluation is not None:
                run.evaluations.append(evaluation)
                return
        else:
            answer = read_answer(body, run.query, most, bound)
            if answer is not None:
                run.answers.append(answer)
                run.answered.add(device)
                return
        self.fleet.counters["refused_results"] += 1

    def withdrew(self, device: str, round: int) -> None:
        """The device will not do the task."""
        if self.running is not None and self.running.round == round:
            self.running.awaited.discard(device)
