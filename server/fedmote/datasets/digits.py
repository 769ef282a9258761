# SPDX-License-Identifier: Apache-2.0
"""The demonstration's data (DIGITS.md), held out and dealt out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

Labels = NDArray[np.uint8]

HELD_OUT = 360
CLASSES = 10


def load() -> tuple[Features, Labels]:
    """Return pixels in 0..1, float32 [1797, 64], and labels 0..9."""
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        return (file["pixels"] / np.float32(16)).astype(np.float32), file["labels"]


def split(rng: np.random.Generator) -> tuple[Features, Labels, Features, Labels]:
    """Return training features and labels, then HELD_OUT held-out ones."""
    x, y = load()
    order = rng.permutation(len(x))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return x[rest], y[rest], x[held], y[held]


def partition(
    y: Labels, devices: int, alpha: float, rng: np.random.Generator, least: int = 8
) -> list[NDArray[np.int64]]:
    """Deal examples to devices, each label in shares drawn from Dirichlet(alpha) (Hsu et al. 2019, arXiv:1909.06335).

    Deals again until each device has `least` examples; one short of them after 100 deals gets some of the richest's.
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
