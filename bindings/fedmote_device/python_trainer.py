# SPDX-License-Identifier: Apache-2.0
"""The functions that the C client calls to train with a NumPyClient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import ffi, lib
from fedmote_device.parameters import ParameterTable
from fedmote_device.trainers import Config, FitStep, NumPyClient

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData

_MORE: Final[int] = lib.FM_OK
_DONE: Final[int] = lib.FM_DONE
_UNSUPPORTED: Final[int] = lib.FM_ERR_UNSUPPORTED
_FAILED: Final[int] = lib.FM_ERR_TRAINING
_LARGEST_FLOAT: Final = float(np.finfo(np.float32).max)
_LARGEST_COUNT: Final = 0xFFFFFFFF
_END: Final = object()  # of the steps of fit, which may hand over None
_PLANNED: Final = ("round", "task", "epochs", "batch_size", "max_steps", "learning_rate", "prox_mu", "seed")


class PythonTrainer:
    """Calls a NumPyClient, one step of its fit at a time.

    The methods return an fm_status_t. error: what the client raised, until the device raises it again.
    """

    def __init__(self, client: NumPyClient, model: NDArray[np.float32], table: ParameterTable) -> None:
        self.client = client
        self.model = model
        self.table = table
        self.config: Config = {}
        self.steps: Iterator[FitStep] | None = None
        self.stepwise = False
        self.error: BaseException | None = None

    def begin(self, plan: CData, work: CData) -> int:
        """Prepare for the work of a plan."""
        self.steps = None
        self.config = {name: getattr(plan, name) for name in _PLANNED}
        self.config["server_round"] = self.config["round"]
        work.planned_steps = 1
        return _MORE

    def step(self, work: CData) -> int:
        """Do one step of fit: all of it unless fit is a generator."""
        if self.steps is None:
            result = self.client.fit(self.table.unflatten(self.model), self.config)
            self.stepwise = isinstance(result, Iterator)
            self.steps = result if isinstance(result, Iterator) else iter([result])
        step = next(self.steps, _END)
        if step is _END:
            work.planned_steps = work.steps
            return _DONE
        parameters, examples, given = _triple(step, "fit()", "(parameters, examples, metrics)")
        metrics = _metrics(given, "fit()")
        counted = _whole(examples, "fit()", "examples", 1)
        loss = _real(metrics.get("loss", 0.0), "fit()", "loss")
        steps = 1 if self.stepwise else _whole(metrics.get("steps", 1), "fit()", "steps", 1)
        planned = _whole(metrics.get("planned_steps", 0), "fit()", "planned_steps", 0)
        self.table.flatten(parameters, self.model, "fit()")
        work.steps += steps
        work.examples, work.loss = counted, loss
        work.planned_steps = max(planned, work.steps + (1 if self.stepwise else 0))
        return _MORE if self.stepwise else _DONE

    def evaluate(self, work: CData) -> int:
        """Run evaluate, all at once."""
        result = self.client.evaluate(self.table.unflatten(self.model), self.config)
        loss, examples, given = _triple(result, "evaluate()", "(loss, examples, metrics)")
        accuracy = _real(_metrics(given, "evaluate()").get("accuracy", 0.0), "evaluate()", "accuracy")
        if not 0 <= accuracy <= 1:
            raise ValueError(f"evaluate() returned accuracy {accuracy}; expected 0 to 1")
        work.steps = work.planned_steps = 1
        work.examples = _whole(examples, "evaluate()", "examples", 1)
        work.loss = _real(loss, "evaluate()", "loss")
        work.correct = math.floor(accuracy * work.examples + 0.5)
        return _DONE

    def query(self, plan: CData, answer: CData) -> int:
        """Have the client count, all at once."""
        query = getattr(self.client, "query", None)
        if query is None:
            return _UNSUPPORTED
        bins = plan.query_bins
        try:
            counts, answer.sum = query(plan.query_field, plan.query_low, plan.query_high, bins)
        except KeyError:
            return _UNSUPPORTED
        if len(counts) != bins:
            raise ValueError(f"query() returned {len(counts)} counts for {bins} bins")
        for i, count in enumerate(counts):
            answer.counts[i] = count
        answer.count = sum(counts)
        return _DONE


def _triple(result: object, source: str, expected: str) -> tuple[Any, Any, Any]:
    """Return what a client returned, if it has three parts."""
    if not isinstance(result, tuple | list) or len(result) != 3:
        raise TypeError(f"{source} returned {type(result).__name__}; expected {expected}")
    return result[0], result[1], result[2]


def _metrics(given: object, source: str) -> Mapping[str, Any]:
    """Return the metrics; None stands for no metric."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{source} returned metrics of type {type(given).__name__}; expected a mapping from names")
    return given


def _real(value: Any, source: str, name: str) -> float:
    """Return a finite number that float32 can hold."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= _LARGEST_FLOAT:
        raise ValueError(f"{source} returned {name} {value!r}; expected a finite number")
    return number


def _whole(value: Any, source: str, name: str, least: int) -> int:
    """Return a whole number of 32 bits."""
    number = _real(value, source, name)
    if not number.is_integer() or not least <= number <= _LARGEST_COUNT:
        raise ValueError(f"{source} returned {name} {value!r}; expected a whole number from {least}")
    return int(number)


def _guarded(python: CData, call: Callable[[PythonTrainer], int]) -> int:
    """Call the trainer behind a handle. An exception must not cross C: it is kept for the device to raise."""
    trainer: PythonTrainer = ffi.from_handle(python)
    try:
        return call(trainer)
    except Exception as error:
        trainer.error = error
        return _FAILED


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_begin(python: CData, plan: CData, work: CData) -> int:
    """Begin the work of a plan, for C."""
    return _guarded(python, lambda trainer: trainer.begin(plan, work))


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_step(python: CData, work: CData) -> int:
    """Do one piece of training, for C."""
    return _guarded(python, lambda trainer: trainer.step(work))


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_evaluate(python: CData, work: CData) -> int:
    """Evaluate, for C."""
    return _guarded(python, lambda trainer: trainer.evaluate(work))


@ffi.def_extern(error=_FAILED)  # type: ignore[untyped-decorator, unused-ignore]
def fmb_python_query(python: CData, plan: CData, answer: CData) -> int:
    """Answer a query, for C."""
    return _guarded(python, lambda trainer: trainer.query(plan, answer))
