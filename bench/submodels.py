# SPDX-License-Identifier: Apache-2.0
"""Nested sub-models of three widths in one federation, compared with a separate federation for each class.

40 devices, digits dealt by Dirichlet(0.3), a third each of 64-32-10, 64-16-10 and 64-8-10: the real C client and the
real rounds in memory. Five seeds; both ways have the same data, orders and seeds of initial models.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmote.datasets import baselines
from fedmote.datasets import digits as data
from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.model.initial import glorot
from fedmote.model.layout import Layout, dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote_device import CTrainer, Device

SEEDS = (1, 2, 3, 4, 5)
DEVICES, ALPHA, ROUNDS = 40, 0.3, 40
SHARES = (1.0, 0.5, 0.25)
WIDTHS = ((64, 32, 10), (64, 16, 10), (64, 8, 10))
TRAINING = Training(epochs=5, batch_size=8, learning_rate=0.2)
STEP_MS = 10
PLOT = Path(__file__).parents[1] / "docs" / "img" / "submodels.png"
Model = NDArray[np.float32]


def federate(layout: Layout, start: Model, trainers: Sequence[CTrainer], rounds: int, seed: int) -> Model:
    """Return the model after these rounds of all these devices, on links in memory."""
    store = Store(":memory:", layout, start)
    fleet = Fleet(layout)
    devices = [
        Device(f"d{i:02}", "memory:", federation="f", trainer=trainer, seed=1000 * seed + i + 1)
        for i, trainer in enumerate(trainers)
    ]
    inbox: dict[str, deque[bytes]] = {f"d{i:02}": deque() for i in range(len(devices))}

    def send(device: str, message: bytes) -> None:
        inbox[device].append(message)

    def broadcast(message: bytes) -> None:
        for waiting in inbox.values():
            waiting.append(message)

    policy = Policy(
        devices=len(devices), goal=1.0, soft_deadline_s=1e5, hard_deadline_s=1e5, encodings=("float32",), seed=seed
    )
    setup = RoundSetup(FedAvg(), TRAINING, policy, last_round=rounds)
    machine, _ = start_rounds(fleet, store, setup, Outlets(broadcast, lambda version, chunks: None))
    now_ms = 0
    while not machine.done:
        now_ms += STEP_MS
        for (name, waiting), device in zip(inbox.items(), devices, strict=True):
            if waiting:
                device.deliver(waiting.popleft(), now_ms)
            elif (wanted := device.wanted) is not None and (chunk := machine.model_chunk(*wanted)) is not None:
                device.deliver(chunk, now_ms)
            else:
                device.poll(now_ms)
            while (message := device.take()) is not None:
                fleet.receive(name, message, now_ms / 1000, send)
        machine.tick(now_ms / 1000)
    for device in devices:
        device.close()
    return machine.model


def compare(seed: int, rounds: int) -> dict[str, list[float]]:
    """Return the held-out accuracy of each class, largest first: of the nested model, and of its own federation."""
    rng = np.random.default_rng(seed)
    x, y, x_held, y_held = data.split(rng)
    parts = data.partition(y, DEVICES, ALPHA, rng)
    trainers = [CTrainer(WIDTHS[i % 3], x[part], y[part]) for i, part in enumerate(parts)]
    layout = dense(WIDTHS[0], SHARES)
    classes = layout.classes()
    nested = federate(layout, glorot(layout, seed), trainers, rounds, seed)
    out: dict[str, list[float]] = {"nested": [], "alone": []}
    for k, widths in enumerate(WIDTHS):
        own = dense(widths)
        alone = federate(own, glorot(own, seed), trainers[k::3], rounds, seed)
        out["nested"].append(baselines.accuracy(classes[k].cut(nested), widths, x_held, y_held))
        out["alone"].append(baselines.accuracy(alone, widths, x_held, y_held))
    return out


def draw(seeds: dict[int, dict[str, list[float]]]) -> None:
    """Plot the medians, and each seed as a point."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for way, at in (("nested", -0.18), ("alone", 0.18)):
        each = np.array([found[way] for found in seeds.values()])
        where = np.arange(len(WIDTHS)) + at
        axes.bar(
            where, np.median(each, axis=0), 0.34, label={"nested": "nested, cut to the class"}.get(way, "by itself")
        )
        axes.plot(np.tile(where, len(each)), each.ravel(), "k.", markersize=4)
    axes.set_xticks(range(len(WIDTHS)), ["-".join(map(str, widths)) for widths in WIDTHS])
    axes.set_ylim(0.8, 1)
    axes.set_ylabel("held-out accuracy")
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=120)


def main() -> None:
    """Measure and print."""
    from common import median, save, table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    seeds = {seed: compare(seed, rounds) for seed in SEEDS}
    rows: list[list[object]] = [["width", "nested", "alone", "nested, each seed", "alone, each seed"]]
    for k, widths in enumerate(WIDTHS):
        each = {way: [seeds[seed][way][k] for seed in SEEDS] for way in ("nested", "alone")}
        rows.append([
            "-".join(map(str, widths)), *(f"{median(each[way]):.3f}" for way in each),
            *(" ".join(f"{one:.3f}" for one in each[way]) for way in each),
        ])  # fmt: skip
    if rounds == ROUNDS:  # the plot in docs/ is of these
        draw(seeds)
    table(f"held-out accuracy after {rounds} rounds, median of seeds {SEEDS}", rows)
    save("submodels", {"rounds": rounds, "seeds": {str(seed): found for seed, found in seeds.items()}})


if __name__ == "__main__":
    main()
