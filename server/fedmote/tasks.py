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

import json
import math
import secrets
import zlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, get_type_hints

import numpy as np
from numpy.typing import NDArray

from fedmote.codec import encode
from fedmote.layout import ROUNDING
from fedmote.session import Fleet
from fedmote.store import StoreError, StoreUnavailableError
from fedmote.wire.Task import Task

Result = dict[str, Any]
"""What a task releases: numbers and lists of them, as JSON takes them."""

MOST_BINS = 32
LARGEST_CODE = 1 << 22  # halves between whole numbers up to it are exact in float32
LARGEST = 1e38  # of a range's ends, so that float32 holds also what a query adds on either side


class TaskError(Exception):
    """A task releases nothing; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Bounds on tasks.

    min_cohort: devices whose results make an aggregate; with fewer, nothing is released. max_per_device: examples, or
    values, that one device adds at most: all that it says is scaled down to that many. answer_s: time to answer a plan.
    wait_s: time until a task begins, between rounds.
    """

    min_cohort: int = 10
    max_per_device: int = 1000
    answer_s: float = 60.0
    wait_s: float = 3600.0


# ---------------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class Query:
    """One plan's histogram: of the field of this name over [low, high) in `bins` bins of equal width."""

    field: str
    low: float
    high: float
    bins: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What the answers to a query come to.

    counts: values in each bin. total: of the values. common: of each bin, whether the least cohort has values in it.
    """

    devices: int
    counts: NDArray[np.float64]
    total: float
    common: NDArray[np.bool_]

    @property
    def count(self) -> float:
        """Values, after the bound on what each device adds."""
        return float(self.counts.sum())


Steps = Generator[Query, Counted, Result]
"""A query's plans, one after the other; each is sent when the one before has been answered."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate a committed model on the devices' data.

    version: 0 for the latest. cohort: devices asked, at least; 0: all, or a share of them, at least the least cohort.
    order: 0 draws them; any other number asks those first that it always asks first, so that a larger share holds a
    smaller one. Cohorts are made larger so that two do not differ by a few devices.
    against: the other model of a roll-out, 0: none. Both are then kept until one is released or others are rolled out.
    """

    version: int = 0
    cohort: int = 0
    share: float = 1.0
    order: int = 0
    against: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        _check_types(self)
        if not 0 < self.share <= 1:
            raise TaskError(f"share {self.share}: above 0, at most 1")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts, sum and mean of a field, and its values in `bins` bins over [low, high), those outside at its ends."""

    field: str
    low: float
    high: float
    bins: int = 10
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what no device answers."""
        _check_types(self)
        _check_range(self.low, self.high)
        if not 1 <= self.bins <= MOST_BINS:
            raise TaskError(f"{self.bins} bins: 1 to {MOST_BINS} are possible")

    def steps(self) -> Steps:
        """Ask once."""
        counted = yield Query(self.field, self.low, self.high, self.bins)
        return {
            "devices": counted.devices, "count": counted.count, "sum": counted.total,
            "mean": counted.total / counted.count, "counts": counted.counts.tolist(),
            "edges": np.linspace(self.low, self.high, self.bins + 1).tolist(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of a field, each to `tolerance`; one outside [low, high) is told as the range's end."""

    field: str
    low: float
    high: float
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    tolerance: float = 0.0  # 0: a thousandth of the range
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be found."""
        _check_types(self)
        _check_range(self.low, self.high)
        if not self.shares or not all(0 < share < 1 for share in self.shares) or len(self.shares) > 20:
            raise TaskError(f"shares {self.shares}: 1 to 20 numbers between 0 and 1")
        # Below, float32 on the device does not tell values apart: neither parts of the range nor numbers of this size.
        apart = float(np.spacing(np.float32(max(abs(self.low), abs(self.high)))))
        least = max(1e-5 * (self.high - self.low), 2 * apart)
        if not self._within >= least:
            raise TaskError(f"tolerance {self._within:g}: at least {least:g} for numbers of this size")

    @property
    def _within(self) -> float:
        return self.tolerance or (self.high - self.low) / 1000

    def steps(self) -> Steps:
        """Find one quantile after the other, each time in the bin that it fell into."""
        tolerance = self._within
        found: list[float] = []
        for share in self.shares:
            low, high = self.low, self.high
            while True:
                # The outer bins count what lies below and above, so that each answer stands for itself.
                inner = MOST_BINS - 2
                width = (high - low) / inner
                counted = yield Query(self.field, low - width, high + width, MOST_BINS)
                edges = low + width * np.arange(-1, inner + 1)
                wanted = share * counted.count - ROUNDING
                place = int(np.searchsorted(np.cumsum(counted.counts), wanted, side="left"))
                if place in (0, MOST_BINS - 1):  # outside: at once at the end, or by a value that moved meanwhile
                    found.append(low if place == 0 else high)
                    break
                low, high = float(edges[place]), float(edges[place]) + width
                if width <= tolerance:
                    found.append(low + width / 2)
                    break
        return {"devices": counted.devices, "quantiles": dict(zip(map(str, self.shares), found, strict=True))}


@dataclass(frozen=True, slots=True)
class HeavyHitters:
    """Whole numbers in [low, high] that make up at least `share` of a field's values, and that a least cohort has."""

    field: str
    low: int
    high: int
    share: float = 0.1
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be found."""
        _check_types(self)
        if not -LARGEST_CODE <= self.low < self.high <= LARGEST_CODE:
            raise TaskError(f"codes {self.low} to {self.high}: ascending, of at most {LARGEST_CODE}")
        if not 0.02 <= self.share <= 1:
            raise TaskError(f"share {self.share}: between 0.02 and 1")

    def steps(self) -> Steps:
        """Follow the bins that hold enough, down to single codes."""
        hitters: dict[str, float] = {}
        ranges = deque([(self.low, self.high + 1)])
        while ranges:
            low, high = ranges.popleft()
            width = -(-(high - low) // (MOST_BINS - 2))
            inner = -(-(high - low) // width)
            # Between whole numbers, so that rounding moves none into another bin; the outer bins count all others.
            start = low - width - 0.5
            counted = yield Query(self.field, start, start + (inner + 2) * width, inner + 2)
            least = self.share * counted.count - ROUNDING
            enough = counted.common & (counted.counts >= least)  # what few hold is not told, nor looked into
            for i in np.flatnonzero(enough[1:-1]).tolist():
                at, count = low + i * width, float(counted.counts[1 + i])
                if width == 1:
                    hitters[str(at)] = count / counted.count
                else:
                    ranges.append((at, min(at + width, high)))
        return {"devices": counted.devices, "codes": dict(sorted(hitters.items(), key=lambda item: -item[1]))}


@dataclass(frozen=True, slots=True)
class RollBack:
    """Commit an earlier model anew, as the next version. Asks no device: what they work on becomes void."""

    version: int
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no version."""
        _check_types(self)


@dataclass(frozen=True, slots=True)
class Release:
    """Note that a model was rolled out to all, so that it is kept."""

    version: int
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no version."""
        _check_types(self)


Request = Evaluate | Histogram | Quantiles | HeavyHitters | RollBack | Release

_KINDS: dict[str, type[Request]] = {
    kind.__name__: kind for kind in (Evaluate, Histogram, Quantiles, HeavyHitters, RollBack, Release)
}


def to_json(request: Request) -> str:
    """Return a request as text."""
    return json.dumps({"kind": type(request).__name__, **asdict(request)})


def from_json(text: str) -> Request:
    """Return the request that to_json() made the text of. TaskError: it is none."""
    try:
        fields = json.loads(text)
        if "shares" in fields:
            fields["shares"] = tuple(fields["shares"])
        return _KINDS[fields.pop("kind")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TaskError(f"no request: {error}") from error


def _check_types(request: Request) -> None:
    """Refuse what came of anybody's JSON, and numbers that neither the wire nor the database takes."""
    for name, kind in get_type_hints(type(request)).items():
        value = getattr(request, name)
        number = isinstance(value, int) and not isinstance(value, bool)
        if kind is int and not (number and abs(value) < 1 << 31):
            raise TaskError(f"{name} {value!r}: a whole number below {1 << 31}")
        if kind is float and not (number or isinstance(value, float)):
            raise TaskError(f"{name} {value!r}: a number")
        if kind is str and not (isinstance(value, str) and value.isprintable()):
            raise TaskError(f"{name} {value!r}: printable text")
        if name in ("version", "cohort", "order", "against") and value < 0:
            raise TaskError(f"{name} {value}: 0 or more")


def _check_range(low: float, high: float) -> None:
    if not (-LARGEST <= low < high <= LARGEST and np.float32(low) < np.float32(high)):
        raise TaskError(f"range {low} to {high}: two numbers of at most {LARGEST:g}, the lower first")


# ------------------------------------------------------------------------------------------- what the devices say


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """One device's evaluation. weight: its examples, bounded."""

    weight: int
    loss: float
    accuracy: float


def read_evaluation(body: Any, version: int, most: int, bound: int) -> _Evaluated | None:
    """Read an Evaluation; None when it makes no sense. most: examples that are believed."""
    examples, correct, loss = body.Examples(), body.Correct(), body.Loss()
    if body.ModelVersion() != version or not 1 <= examples <= most or correct > examples or not math.isfinite(loss):
        return None
    return _Evaluated(min(examples, bound), loss, correct / examples)


def read_answer(body: Any, query: Query, most: int, bound: int) -> tuple[NDArray[np.float64], float] | None:
    """Read an Answer: (counts, sum), scaled down to the bound; None when it makes no sense or holds no value."""
    counts = np.array([body.Counts(i) for i in range(min(body.CountsLength(), MOST_BINS + 1))], np.float64)
    count, total = body.Count(), body.Sum()
    if len(counts) != query.bins or counts.sum() != count or not 1 <= count <= most:
        return None
    slack = 1e-3 * count * max(abs(query.low), abs(query.high))  # the device sums up in float32
    if not count * query.low - slack <= total <= count * query.high + slack:
        return None  # a sum that is no number, too
    scale = min(1.0, bound / count)
    return counts * scale, total * scale


def spread(values: NDArray[np.float64], weights: NDArray[np.float64], least: int) -> Result:
    """Return weighted mean and deviation over the devices, and the mean of each quarter of them, the lowest first.

    quarters: None when a quarter is of fewer devices than `least`. Extremes and quartiles would be single devices'.
    """
    mean = float(np.average(values, weights=weights))
    deviation = math.sqrt(float(np.average((values - mean) ** 2, weights=weights)))
    parts = np.array_split(np.sort(values), 4)
    quarters = [float(part.mean()) for part in parts] if min(map(len, parts)) >= max(1, least) else None
    return {"mean": mean, "deviation": deviation, "quarters": quarters}


def evaluated(results: list[_Evaluated], least: int) -> Result:
    """Return the aggregate of evaluations, of which nothing is of fewer devices than `least`."""
    weights = np.array([r.weight for r in results], np.float64)
    return {
        "devices": len(results), "examples": int(weights.sum()),
        "loss": spread(np.array([r.loss for r in results]), weights, least),
        "accuracy": spread(np.array([r.accuracy for r in results]), weights, least),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- running tasks


class Image(Protocol):
    """What a class of devices gets of a model (fedmote.round.Image)."""

    @property
    def version(self) -> int:
        """As the wire names it."""
        ...

    @property
    def elements(self) -> int:
        """Its length."""
        ...

    @property
    def crc32(self) -> int:
        """Its checksum."""
        ...


class Model(Protocol):
    """A model as devices get it (fedmote.round.Base)."""

    @property
    def version(self) -> int:
        """Of the model, and on the wire of the whole one."""
        ...

    @property
    def images(self) -> Sequence[Image]:
        """Of each class of devices."""
        ...


class Host(Protocol):
    """What tasks need of the federation's rounds (fedmote.round.Machine)."""

    number: int

    @property
    def chunk_elements(self) -> int:
        """Elements of a chunk."""
        ...

    def lend(self, version: int) -> Model:
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
    evaluations: list[_Evaluated] = field(default_factory=list)
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
