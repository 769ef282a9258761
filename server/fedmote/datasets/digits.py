# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits (DIGITS.md): load them, hold some out, and deal the rest to devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

Labels = NDArray[np.uint8]

HELD_OUT = 360
CLASSES = 10
WIDTHS = (64, 32, 10)  # of the layers of the network that demo and tests train on them


def load() -> tuple[Features, Labels]:
    """Return pixels in 0..1, float32 [1797, 64], and labels 0..9."""
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        return (file["pixels"] / np.float32(16)).astype(np.float32), file["labels"]


def split(rng: np.random.Generator) -> tuple[Features, Labels, Features, Labels]:
    """Return features and labels for training, then those of HELD_OUT held-out examples."""
    x, y = load()
    order = rng.permutation(len(x))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return x[rest], y[rest], x[held], y[held]


def partition(
    y: Labels, devices: int, alpha: float, rng: np.random.Generator, least: int = 8
) -> list[NDArray[np.int64]]:
    """Return the indices of each device's examples; each label is dealt in Dirichlet(alpha) shares.

    Hsu et al. 2019, arXiv:1909.06335. The deal is repeated until each device has `least` examples. After 100 deals a
    device that is short of them takes some from the device with the most.
    """
    owner: list[list[int]] = []
    for _ in range(100):
        owner = [[] for _ in range(devices)]
        for label in range(CLASSES):
            examples = rng.permutation(np.flatnonzero(y == label))
            cuts = (np.cumsum(rng.dirichlet([alpha] * devices))[:-1] * len(examples)).astype(int)
            for device, part in enumerate(np.split(examples, cuts)):
                owner[device].extend(int(i) for i in part)
        if min(map(len, owner)) >= least:
            break
    for poor in owner:
        while len(poor) < least:
            poor.append(max(owner, key=len).pop())
    return [np.array(sorted(o), np.int64) for o in owner]


def sample(
    y: Labels, devices: int, alpha: float, examples: tuple[int, int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the indices of each device's examples, drawn with replacement; its labels have Dirichlet(alpha) shares.

    examples: the smallest and the largest number that a device gets. There are too few digits to deal them to a
    thousand devices.
    """
    pools = [np.flatnonzero(y == label) for label in range(CLASSES)]
    out: list[NDArray[np.int64]] = []
    for _ in range(devices):
        count = int(rng.integers(examples[0], examples[1] + 1))
        counts = rng.multinomial(count, rng.dirichlet([alpha] * CLASSES))
        out.append(np.concatenate([rng.choice(pool, n) for pool, n in zip(pools, counts, strict=True)]))
    return out
