# SPDX-License-Identifier: Apache-2.0
"""One device's update, as a strategy sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmote.model.layout import Model


@dataclass(frozen=True, slots=True)
class Update:
    """One device's update, complete or partial.

    examples: number of examples it stands for. steps, planned_steps: training steps done, and asked for. loss: mean
    training loss. encoding: of the data (fedmote.model.encodings). delta: whether the data are differences to the base
    model. chunk_elements: elements of a chunk. data: the chunks' bytes end to end, with gaps for missing ones. scales:
    one for each chunk; None: the encoding has none. received: one byte for each chunk, 1 if it arrived; None: all did.
    ranges: (first, count) pairs of the elements that it covers; None: the whole model. local_examples: number of
    examples that the device holds, from its Hello; 0: unknown. base: the model that it started from; None: the model
    that the round's accumulator began with. discount: above 0 and at most 1; a stale update moves the model by this
    share of its difference to its base.
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
    local_examples: int = 0
    base: Model | None = None
    discount: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether it covers every element of the model."""
        return self.ranges is None and self.received is None

    @property
    def partial(self) -> bool:
        """Whether it stands for less than the plan asked for."""
        return self.steps < self.planned_steps or self.received is not None
