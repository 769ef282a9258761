# SPDX-License-Identifier: Apache-2.0
"""The demonstration's devices, in a process of their own, and what befalls them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedmote.datasets.digits import Features, Labels
from fedmote_device import CTrainer, Device, run_many

WIDTHS = (64, 32, 10)
DROP_SHARE = 0.25
STRAGGLER_SHARE = 0.2
AWAY_S = (0.05, 0.3)


@dataclass
class Fate:
    """What befalls one device in one round."""

    round: int = 0
    cut_state: str = ""  # the link breaks in this state, "": not at all
    cut_at: float = 0.0  # after this share of the state's chunks or steps
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
        """Return what befalls device `index` in `round`, and after how many steps it stalls (0: never)."""
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


def reached(device: Device, fate: Fate, chunks: int) -> bool:
    """Tell whether the device is where its link is to break."""
    if device.state != fate.cut_state:
        return False
    if fate.cut_state == "working":
        done, planned = device.steps
        return done >= fate.cut_at * planned
    return device.chunk >= max(1, int(fate.cut_at * chunks))


def befall(devices: list[Device], sizes: list[int], misfortune: Misfortune, chunks: int) -> None:
    """Break and mend links as drawn."""
    now = time.monotonic()
    for index, device in enumerate(devices):
        fate = misfortune.fates.get(index)
        if device.round and (fate is None or fate.round != device.round):
            fate, _ = misfortune.of(index, device.round, sizes[index])
            misfortune.fates[index] = fate
        if fate is None:
            continue
        if fate.cut_state and not fate.cut and reached(device, fate, chunks):
            fate.cut = True
            rng = np.random.default_rng([misfortune.seed, fate.round, 9, index])
            fate.away_until = now + rng.uniform(*AWAY_S)
            device.cut_link()
        elif fate.away_until and now >= fate.away_until:
            fate.away_until = 0.0
            device.restore_link()


def main(
    pipe: Any, urls: list[str], seed: int, parts: list[tuple[Features, Labels]], epochs: int, batch: int, chunks: int,
    faults: bool, finish_at_limit: bool, rounds: int,
) -> None:  # fmt: skip
    """Run the devices until the pipe says stop; answer with their counters."""
    devices = [
        Device(
            f"device-{i:02}",
            urls[i],
            federation="demo",
            trainer=CTrainer(WIDTHS, x, y),
            seed=1000 * seed + i + 1,
            backoff_ms=(50, 500),
            retry_ms=(500, 4000),
        )
        for i, (x, y) in enumerate(parts)
    ]
    sizes = [len(y) for _, y in parts]
    misfortune = Misfortune(seed, len(devices), epochs, batch, faults)
    for i, device in enumerate(devices):
        device.finish_at_limit = finish_at_limit
        device.set_step_limits([0] + [misfortune.of(i, r, sizes[i])[1] for r in range(1, rounds + 1)])

    def stop() -> bool:
        befall(devices, sizes, misfortune, chunks)
        return bool(pipe.poll())

    run_many(devices, stop, slice_ms=1)
    totals: dict[str, int] = {}
    for device in devices:
        for name, value in (device.counters | {f"link_{k}": v for k, v in device.link_counters.items()}).items():
            totals[name] = totals.get(name, 0) + value
        device.close()
    pipe.send(totals)
