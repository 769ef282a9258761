# SPDX-License-Identifier: Apache-2.0
"""The devices of the demonstration, run in another process, and their faults."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from fedmote.datasets.digits import Features, Labels
from fedmote_device import CTrainer, Device, run_many

WIDTHS = (64, 32, 10)
DROP_SHARE = 0.25
STRAGGLER_SHARE = 0.2
AWAY_S = (0.05, 0.3)


@dataclass
class Fate:
    """The faults of one device in one round.

    cut_state: the client's state in which the link breaks; "": it does not. cut_at: after this share of the state's
    chunks or steps. away_until: when the link is mended, in seconds. cut: whether it broke already.
    """

    round: int = 0
    cut_state: str = ""
    cut_at: float = 0.0
    away_until: float = 0.0
    cut: bool = False


@dataclass
class Misfortune:
    """Draws, for each round, a quarter of the devices to lose their link and a fifth to be too slow."""

    seed: int
    count: int
    epochs: int
    batch: int
    faults: bool = True
    fates: dict[int, Fate] = field(default_factory=dict)

    def of(self, index: int, round: int, examples: int) -> tuple[Fate, int]:
        """Return the faults of device `index` in `round`, and after how many steps it stalls (0: never)."""
        if not self.faults:
            return Fate(round), 0
        rng = np.random.default_rng([self.seed, round, 7])
        order = rng.permutation(self.count)
        dropped = set(order[: round_half(self.count * DROP_SHARE)].tolist())
        order = rng.permutation(self.count)
        slow = set(order[: round_half(self.count * STRAGGLER_SHARE)].tolist())
        own = np.random.default_rng([self.seed, round, 8, index])
        state = str(own.choice(["downloading", "working", "uploading"], p=[0.35, 0.15, 0.5]))
        fate = Fate(round, state if index in dropped else "", float(own.uniform(0.1, 0.9)))
        steps = self.epochs * -(-examples // self.batch)
        return fate, max(1, int(steps * own.uniform(0.1, 0.9))) if index in slow and steps > 1 else 0


def round_half(x: float) -> int:
    """Round to the nearest integer, halves up."""
    return int(x + 0.5)


def is_due(device: Device, fate: Fate, chunks: int) -> bool:
    """Tell whether the device's link should break now."""
    if device.state != fate.cut_state:
        return False
    if fate.cut_state == "working":
        done, planned = device.steps
        return done >= fate.cut_at * planned
    return device.chunk >= max(1, int(fate.cut_at * chunks))


def apply_fates(devices: list[Device], sizes: list[int], misfortune: Misfortune, chunks: int) -> None:
    """Break and restore links as drawn. sizes: number of examples of each device."""
    now = time.monotonic()
    for index, device in enumerate(devices):
        fate = misfortune.fates.get(index)
        if device.round and (fate is None or fate.round != device.round):
            fate, _ = misfortune.of(index, device.round, sizes[index])
            misfortune.fates[index] = fate
        if fate is not None:
            _apply(fate, device, now, chunks, np.random.default_rng([misfortune.seed, fate.round, 9, index]))


def _apply(fate: Fate, device: Device, now: float, chunks: int, rng: np.random.Generator) -> None:
    if fate.cut_state and not fate.cut and is_due(device, fate, chunks):
        fate.cut = True
        fate.away_until = now + rng.uniform(*AWAY_S)
        device.cut_link()
    elif fate.away_until and now >= fate.away_until:
        fate.away_until = 0.0
        device.restore_link()


@dataclass(frozen=True)
class FleetSetup:
    """The devices of the demonstration, as passed to their process.

    urls: of the brokers or serial lines, one for each device. parts: their features and labels. chunks: of a model.
    finish_at_limit: whether a device that reaches its step limit sends what it has. rounds: planned number of rounds.
    """

    urls: list[str]
    parts: list[tuple[Features, Labels]]
    misfortune: Misfortune
    chunks: int
    finish_at_limit: bool
    rounds: int


def main(pipe: Connection, setup: FleetSetup) -> None:
    """Run the devices until the pipe says stop; answer with their counters."""
    misfortune = setup.misfortune
    devices = [
        Device(
            f"device-{i:02}",
            setup.urls[i],
            federation="demo",
            trainer=CTrainer(WIDTHS, x, y),
            seed=1000 * misfortune.seed + i + 1,
            backoff_ms=(50, 500),
            retry_ms=(500, 4000),
        )
        for i, (x, y) in enumerate(setup.parts)
    ]
    sizes = [len(y) for _, y in setup.parts]
    for i, device in enumerate(devices):
        device.finish_at_limit = setup.finish_at_limit
        device.set_step_limits([0] + [misfortune.of(i, r, sizes[i])[1] for r in range(1, setup.rounds + 1)])

    def stop() -> bool:
        apply_fates(devices, sizes, misfortune, setup.chunks)
        return bool(pipe.poll())

    run_many(devices, stop, slice_ms=1)
    totals: dict[str, int] = {}
    for device in devices:
        for name, value in (device.counters | {f"link_{k}": v for k, v in device.link_counters.items()}).items():
            totals[name] = totals.get(name, 0) + value
        device.close()
    pipe.send(totals)
