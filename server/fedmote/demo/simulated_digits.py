# SPDX-License-Identifier: Apache-2.0
"""The handwritten digits as the workload of a virtual fleet, and the preset of `fedmote simulate`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmote.datasets import baselines, digits
from fedmote.model.layout import Model, dense
from fedmote.rounds.policy import Policy, Training
from fedmote.simulation.population import assign_classes, populate
from fedmote.simulation.settings import FleetSettings
from fedmote.simulation.simulation import ServerSettings, Simulation
from fedmote.simulation.workload import Workload
from fedmote_device import CTrainer

LAYOUT = dense(digits.WIDTHS)
PRESET_POLICY = Policy(devices=20, select=64, goal=0.8, soft_deadline_s=600, hard_deadline_s=900)
PRESET_TRAINING = Training(epochs=5, batch_size=8, learning_rate=0.2)


def digits_workload(
    x: digits.Features, y: digits.Labels, parts: list[NDArray[np.int64]],
    held_out: tuple[digits.Features, digits.Labels],
) -> Workload:  # fmt: skip
    """Return the workload of devices that hold the examples `parts` of x and y; evaluated on held_out."""

    def trainer(device: int) -> CTrainer:
        return CTrainer(digits.WIDTHS, x[parts[device]], y[parts[device]])

    def evaluate(model: Model) -> dict[str, float]:
        return {"accuracy": baselines.accuracy(model, digits.WIDTHS, *held_out)}

    return Workload(LAYOUT, trainer, evaluate)


def simulate_digits(fleet: FleetSettings, server: ServerSettings) -> Simulation:
    """Return the simulation of a fleet that learns the digits."""
    rng = np.random.default_rng(fleet.seed)
    x, y, x_held, y_held = digits.split(rng)
    sizes = (fleet.least_examples, fleet.most_examples)
    parts = digits.sample(y, fleet.devices, fleet.alpha, sizes, rng)
    population = populate(fleet.classes, assign_classes(fleet.classes, fleet.devices, rng), rng)
    workload = digits_workload(x, y, parts, (x_held, y_held))
    return Simulation(population, workload, server, seed=fleet.seed, start_h=fleet.start_h)
