# SPDX-License-Identifier: Apache-2.0
"""One device's update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmote.model.layout import Model


@dataclass(frozen=True, slots=True)
class Update:
    """One device's update, complete or in part.

    data: the chunks' data end to end (gaps included). received: one byte a chunk, None when all came.
    ranges: (first, count) pairs, None for the whole model. delta: the data are differences to the base model.
    base: the model that it started from; None: the one that the round's accumulator began with. discount: above 0 and
    at most 1, how far its difference to its base is followed, less than 1 for one that started from an older model.
    """

    device: str
    examples: int
    steps: int
    planned_steps: int
    loss: float
    encoding: int
    delta: bool
    chunk_elements: int
    data: bytearray
    scales: NDArray[np.float32] | None
    received: bytearray | None
    ranges: NDArray[np.uint32] | None
    local_examples: int = 0  # that the device has in all, as its Hello says; 0: it did not
    base: Model | None = None
    discount: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether it speaks for every element of the model."""
        return self.ranges is None and self.received is None

    @property
    def partial(self) -> bool:
        """Whether it stands for less than the plan asked for."""
        return self.steps < self.planned_steps or self.received is not None
