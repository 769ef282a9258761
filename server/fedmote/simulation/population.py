# SPDX-License-Identifier: Apache-2.0
"""The devices of a virtual fleet: their classes, speeds and clocks, drawn from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmote.simulation.battery import BatteryModel
from fedmote.simulation.network import LinkModel


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """A class of devices.

    share: of the fleet, as a weight among the classes. steps_per_s: mini-batches per second, plus or minus the share
    `spread`. drift_ppm: maximum error of its clock. retry_s: seconds after which the client repeats a message without
    an answer; must be longer than a chunk takes. metered: whether its link costs money, as in DeviceState.
    """

    name: str = "device"
    share: float = 1.0
    steps_per_s: float = 1.0
    spread: float = 0.2
    drift_ppm: float = 50.0
    retry_s: float = 5.0
    metered: bool = False
    link: LinkModel = field(default_factory=LinkModel)
    battery: BatteryModel = field(default_factory=BatteryModel)


PRESET = (
    DeviceClass("sensor", 0.5, 1.0, 0.3, 100.0, 10.0, False, LinkModel(2_000, 5_000, 150, 0.02, 3600, 1800)),
    DeviceClass(
        "tracker", 0.3, 2.0, 0.3, 50.0, 5.0, True, LinkModel(10_000, 30_000, 300, 0.05, 1800, 3600),
        BatteryModel(idle_h=60, train_h=8, radio_mb=200, charge_h=3),
    ),
    DeviceClass(
        "phone", 0.2, 50.0, 0.5, 20.0, 2.0, False, LinkModel(200_000, 1_000_000, 50, 0.01, 7200, 1800),
        BatteryModel(idle_h=24, train_h=5, radio_mb=5000, charge_h=2),
    ),
)  # fmt: skip
"""Sensors on the mains with a slow radio, trackers that are often offline, and phones."""


@dataclass(frozen=True)
class Population:
    """A fleet as arrays with one element per device.

    class_index: of its class in `classes`. steps_per_s: mini-batches per second. rate: speed of its clock, 1 + drift.
    offset_ms: its clock at the start.
    """

    classes: Sequence[DeviceClass]
    class_index: NDArray[np.int64]
    steps_per_s: NDArray[np.float64]
    rate: NDArray[np.float64]
    offset_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_index)

    def class_of(self, device: int) -> DeviceClass:
        """Return a device's class."""
        return self.classes[int(self.class_index[device])]


def populate(
    classes: Sequence[DeviceClass], class_index: NDArray[np.int64], rng: np.random.Generator
) -> Population:  # fmt: skip
    """Draw speeds and clocks of devices with these classes."""

    def numbers(name: str) -> NDArray[np.float64]:
        return np.array([getattr(c, name) for c in classes], np.float64)[class_index]

    around = rng.uniform(-1, 1, (2, len(class_index)))
    return Population(
        tuple(classes), class_index, numbers("steps_per_s") * (1 + numbers("spread") * around[0]),
        1 + 1e-6 * numbers("drift_ppm") * around[1], rng.integers(0, 1 << 32, len(class_index)),
    )  # fmt: skip


def assign_classes(classes: Sequence[DeviceClass], devices: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return each device's class index: the classes' shares, as nearly as whole devices allow, in random order."""
    cuts = np.rint(np.cumsum([0.0] + [c.share for c in classes]) / sum(c.share for c in classes) * devices)
    counts = np.diff(cuts).astype(int)
    return rng.permutation(np.repeat(np.arange(len(classes)), counts))
