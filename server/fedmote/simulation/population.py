# SPDX-License-Identifier: Apache-2.0
"""Who the devices are: their classes, speeds, clocks and data, all drawn from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmote.datasets import digits as data
from fedmote.simulation.battery import BatteryModel
from fedmote.simulation.network import LinkModel

Examples = list[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """A kind of device.

    share: of the fleet, as a weight among the classes. steps_per_s: mini-batches in a second, give or take the share
    `spread`. drift_ppm: how far, at most, its clock runs too fast or too slow. retry_s: after which the client repeats
    what is not answered; longer than a chunk takes. metered: its link costs money, as DeviceState tells.
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
"""Sensors on the mains with a slow radio, trackers that are often in a tunnel, and phones."""


@dataclass(frozen=True)
class Population:
    """A fleet on paper: numbers, one a device."""

    classes: Sequence[DeviceClass]
    kind: NDArray[np.int64]  # index of each device's class
    steps_per_s: NDArray[np.float64]
    rate: NDArray[np.float64]  # of its clock: 1 + drift
    offset_ms: NDArray[np.int64]  # what its clock shows at the start
    x: data.Features
    y: data.Labels
    parts: Examples  # indices of each device's examples

    def __len__(self) -> int:
        return len(self.kind)

    def of(self, device: int) -> DeviceClass:
        """Return a device's class."""
        return self.classes[int(self.kind[device])]


def populate(
    classes: Sequence[DeviceClass], kind: NDArray[np.int64], x: data.Features, y: data.Labels, parts: Examples,
    random: np.random.Generator,
) -> Population:  # fmt: skip
    """Draw speeds and clocks of devices whose classes and data are settled."""

    def numbers(name: str) -> NDArray[np.float64]:
        return np.array([getattr(c, name) for c in classes], np.float64)[kind]

    around = random.uniform(-1, 1, (2, len(kind)))
    return Population(
        tuple(classes), kind, numbers("steps_per_s") * (1 + numbers("spread") * around[0]),
        1 + 1e-6 * numbers("drift_ppm") * around[1], random.integers(0, 1 << 32, len(kind)), x, y, parts,
    )  # fmt: skip


def kinds(classes: Sequence[DeviceClass], devices: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Deal devices to the classes, as near to their shares as whole devices allow."""
    cuts = np.rint(np.cumsum([0.0] + [c.share for c in classes]) / sum(c.share for c in classes) * devices)
    counts = np.diff(cuts).astype(int)
    return random.permutation(np.repeat(np.arange(len(classes)), counts))


def small_samples(
    y: data.Labels, devices: int, alpha: float, examples: tuple[int, int], random: np.random.Generator
) -> Examples:
    """Draw each device's examples with replacement, its labels in shares from Dirichlet(alpha).

    There are too few digits to deal them out to a thousand devices.
    """
    pools = [np.flatnonzero(y == label) for label in range(data.CLASSES)]
    out: Examples = []
    for _ in range(devices):
        count = int(random.integers(examples[0], examples[1] + 1))
        counts = random.multinomial(count, random.dirichlet([alpha] * data.CLASSES))
        out.append(np.concatenate([random.choice(pool, n) for pool, n in zip(pools, counts, strict=True)]))
    return out
