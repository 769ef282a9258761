# SPDX-License-Identifier: Apache-2.0
"""The updates of the devices in the crash tests: known in advance, and exact in float64 for any order of the sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
ELEMENTS, CHUNK, DEVICES = 600, 128, 50
MAX_STALENESS, STALENESS_EXPONENT = 1000, 0.5  # of asynchronous rounds: no update is ever too old
EXAMPLES = [10 + 7 * index for index in range(DEVICES)]


def weights(base: Floats, round: int, index: int) -> Floats:
    """Return the update of device `index` for a model: half of it plus the device's own values, in steps of 1/1024."""
    own = np.random.default_rng([round, index]).integers(-(2**20), 2**20, ELEMENTS)
    return (np.round(512 * base.astype(np.float64) + own) / 1024).astype(np.float32)


def trajectory(rounds: int) -> list[Floats]:
    """Return the models of versions 1 to rounds + 1 if every device counts exactly once in every round."""
    models = [np.zeros(ELEMENTS, np.float32)]
    for round in range(1, rounds + 1):
        parts = [EXAMPLES[i] * weights(models[-1], round, i).astype(np.float64) for i in range(DEVICES)]
        models.append((np.sum(parts, axis=0) / sum(EXAMPLES)).astype(np.float32))
    return models


def buffered(models: list[Floats], round: int, updates: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Return the model of an asynchronous round from updates, (device, round of its plan), each discounted by its
    staleness.
    """
    base = models[round - 1].astype(np.float64)
    moved = np.zeros(ELEMENTS)
    for index, planned in updates:
        then = models[planned - 1]
        discount = float((1 + round - planned) ** -STALENESS_EXPONENT)
        moved += EXAMPLES[index] * discount * (weights(then, planned, index).astype(np.float64) - then)
    return np.asarray(base + moved / sum(EXAMPLES[index] for index, _ in updates))


class Trainer:
    """A NumPyClient that trains like `weights` and remembers its rounds."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.fits: list[int] = []

    def get_parameters(self, config: dict[str, Any]) -> list[Floats]:
        return [np.zeros(ELEMENTS, np.float32)]

    def fit(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[list[Floats], int, dict[str, float]]:
        round = int(config["round"])
        self.fits.append(round)
        return [weights(parameters[0], round, self.index)], EXAMPLES[self.index], {"loss": 1.0}

    def evaluate(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[float, int, dict[str, float]]:
        raise NotImplementedError
