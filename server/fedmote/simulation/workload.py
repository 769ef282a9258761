# SPDX-License-Identifier: Apache-2.0
"""What a virtual fleet learns. The caller brings it; the engine knows no data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedmote.model.layout import Layout, Model
from fedmote_device import CTrainer, NumPyClient


@dataclass(frozen=True)
class Workload:
    """A model, the trainers of the devices, and the figures of a new model.

    layout: of the model. trainer: returns the trainer of device i, counted from 0, on that device's own data; it is
    called whenever the device gets work, so it must return the same trainer each time. evaluate: returns figures of a
    model by name; "accuracy" is one of them.
    """

    layout: Layout
    trainer: Callable[[int], CTrainer | NumPyClient]
    evaluate: Callable[[Model], dict[str, float]]
