# SPDX-License-Identifier: Apache-2.0
"""What one update may do to the model, and what a model must be before it is committed.

Bounding the norm of each update is the defence of Sun et al. 2019 ("Can you really backdoor federated learning?",
arXiv:1911.07963, section 4); here the bound follows the fleet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, Literal, NamedTuple

import numpy as np

from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote_device import kernels

LARGEST: Final = 1e15
"""The largest element of a model that is committed: sums of squares of such numbers still fit into float32."""
HISTORY: Final = 64  # changes that the median is of
FAR: Final = 10.0  # times the bound: what no honest device was seen to send
FEWEST: Final = 3  # changes that make a median


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on one device's influence: [bounds] of federation.toml.

    The change of an update is the root mean square of its differences to the model that it starts from, over the
    elements that it covers. change_multiple: an update's change may be so many times the median of the latest changes;
    0: no such bound. max_change: no update's change may be larger. over: "clip" an update over these bounds to them, or
    "refuse" it; over FAR times its bound it is refused in any case. examples_multiple: an update weighs at most as so
    many times the median number of examples that the connected devices hold; 0: no such bound.
    """

    change_multiple: float = 10.0
    max_change: float = 1e6
    over: Literal["clip", "refuse"] = "clip"
    examples_multiple: float = 10.0


class Change(NamedTuple):
    """The change of an update (see Bounds), and the largest that is allowed."""

    rms: float
    bound: float


class UpdateGuard:
    """Judges the updates of one federation.

    The median is of changes offered, accepted or not, one for each device and round. So a lone device cannot move it,
    and it follows when all devices change, for example after a new learning rate.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._changes: deque[float] = deque(maxlen=HISTORY)
        self._seen: set[str] = set()  # devices whose change of this round is in the history
        self._bound = bounds.max_change

    def begin_round(self) -> None:
        """Begin a round: its bound follows from the changes before it."""
        self._seen.clear()
        multiple, bound = self.bounds.change_multiple, self.bounds.max_change
        if multiple and len(self._changes) >= FEWEST:
            bound = min(bound, multiple * median(self._changes))
        self._bound = bound

    def measure(self, update: Update, model: Model) -> Change:
        """Measure an update. model: the round's base, which the update starts from unless it names another."""
        base = model if update.base is None else update.base
        measured = kernels.measure(base, update.delta, update)
        if measured is None:
            raise ValueError(f"update of {update.device} has sizes that do not match each other")
        squares, covered = measured
        rms = math.sqrt(squares / covered) if covered and squares >= 0 else math.nan  # NaN fails each comparison
        if math.isfinite(rms) and update.device not in self._seen:
            self._seen.add(update.device)
            self._changes.append(rms)
        return Change(rms, self._bound)

    def clipped(self, update: Update, change: Change) -> Update | None:
        """Return the update, within its bound. None: it is to be refused."""
        if change.rms <= change.bound:
            return update
        if self.bounds.over == "refuse" or change.rms > FAR * change.bound:
            return None
        # A discount moves the model by that share of the update's difference to its base, which is what clipping means.
        return replace(update, discount=update.discount * change.bound / change.rms)

    def step_error(self, model: Model, new: Model) -> str | None:
        """Return why a round's result moves the model too far; None: it does not.

        Only while the round had no bound of its own, as in the first one after a start: later each update is bounded.
        """
        multiple = self.bounds.change_multiple
        if not multiple or self._bound < self.bounds.max_change or len(self._changes) < FEWEST:
            return None
        rms = float(np.sqrt(np.mean((new.astype(np.float64) - model.astype(np.float64)) ** 2)))
        usual = median(self._changes)
        if rms <= multiple * usual:
            return None
        return f"it moves the model by {rms:.3g} (root mean square), while the median of the updates is {usual:.3g}"


def most_examples(bounds: Bounds, held: Sequence[int]) -> int:
    """Return the most examples that an update may weigh as; 0: no bound. held: of each connected device."""
    return math.ceil(bounds.examples_multiple * median(held)) if bounds.examples_multiple and held else 0


def bounded_examples(update: Update, most: int) -> Update:
    """Return the update with at most `most` examples, claimed or held; 0: no bound."""
    if not most or max(update.examples, update.local_examples) <= most:
        return update
    return replace(update, examples=min(update.examples, most), local_examples=min(update.local_examples, most))


def model_error(model: object, elements: int) -> str | None:
    """Return why a model must not be committed; None: it may be."""
    if not isinstance(model, np.ndarray) or model.dtype != np.float32 or model.shape != (elements,):
        found = f"{model.dtype} of shape {model.shape}" if isinstance(model, np.ndarray) else type(model).__name__
        return f"expected a float32 array of shape ({elements},), found {found}"
    largest = float(np.max(np.abs(model)))
    if not largest <= LARGEST:  # also if it is NaN
        return f"its largest element is {largest:g}; training would overflow (the bound is {LARGEST:g})"
    return None
