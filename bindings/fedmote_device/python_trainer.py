# SPDX-License-Identifier: Apache-2.0
"""The functions that the C client calls to train with a NumPyClient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import ffi, lib
from fedmote_device.trainers import Config, FitStep, NumPyClient, Parameters

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData

_MORE: Final[int] = lib.FM_OK
_DONE: Final[int] = lib.FM_DONE
_UNSUPPORTED: Final[int] = lib.FM_ERR_UNSUPPORTED
_FAILED: Final[int] = lib.FM_ERR_TRAINING
_PLANNED: Final = ("round", "task", "epochs", "batch_size", "max_steps", "learning_rate", "prox_mu", "seed")


class PythonTrainer:
    """Calls a NumPyClient, one step of its fit at a time.

    The methods return an fm_status_t. error: what the client raised, until the device raises it again.
    """

    def __init__(self, client: NumPyClient, model: NDArray[np.float32], shapes: list[tuple[int, ...]]) -> None:
        self.client = client
        self.model = model
        self.shapes = shapes
        self.config: Config = {}
        self.steps: Iterator[FitStep] | None = None
        self.stepwise = False
        self.error: BaseException | None = None

    def parameters(self) -> Parameters:
        """Copy the model out, in the client's shapes."""
        out, at = [], 0
        for shape in self.shapes:
            size = int(np.prod(shape))
            out.append(self.model[at : at + size].reshape(shape).copy())
            at += size
        return out

    def begin(self, plan: CData, work: CData) -> int:
        """Prepare for the work of a plan."""
        self.steps = None
        self.config = {name: getattr(plan, name) for name in _PLANNED}
        work.planned_steps = 1
        return _MORE

    def step(self, work: CData) -> int:
        """Do one step of fit: all of it unless fit is a generator."""
        if self.steps is None:
            result = self.client.fit(self.parameters(), self.config)
            self.stepwise = isinstance(result, Iterator)
            self.steps = result if isinstance(result, Iterator) else iter([result])
        step = next(self.steps, None)
        if step is None:
            work.planned_steps = work.steps
            return _DONE
        parameters, examples, metrics = step
        self.model[:] = np.concatenate([np.ravel(p) for p in parameters])
        work.steps += 1 if self.stepwise else int(metrics.get("steps", 1))
        work.examples = examples
        work.loss = float(metrics.get("loss", 0.0))
        work.planned_steps = max(int(metrics.get("planned_steps", 0)), work.steps + (1 if self.stepwise else 0))
        return _MORE if self.stepwise else _DONE

    def evaluate(self, work: CData) -> int:
        """Run evaluate, all at once."""
        loss, examples, metrics = self.client.evaluate(self.parameters(), self.config)
        work.steps = work.planned_steps = 1
        work.examples, work.loss = examples, loss
        work.correct = round(float(metrics.get("accuracy", 0.0)) * examples)
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
