# SPDX-License-Identifier: Apache-2.0
"""The devices of the demonstration, run in another process, and their faults."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from fedmote.datasets.digits import WIDTHS, Features, Labels
from fedmote_device import CTrainer, Device, run_many

DROP_SHARE = 0.25
STRAGGLER_SHARE = 0.2
OUTAGE_S = (0.05, 0.3)


@dataclass
class LinkCut:
    """The cut of one device's link in one round.

    state: the client's state in which the link breaks; "": it does not. at: after this share of the state's chunks or
    steps. restore_s: when to restore the link, in seconds; 0: never. done: whether it broke already.
    """

    round: int = 0
    state: str = ""
    at: float = 0.0
    restore_s: float = 0.0
    done: bool = False


@dataclass
class FaultPlan:
    """Draws for each round a quarter of the devices, whose links break, and a fifth, which are too slow."""

    seed: int
    count: int
    epochs: int
    batch: int
    enabled: bool = True
    cuts: dict[int, LinkCut] = field(default_factory=dict)

    def faults_of(self, index: int, round: int, examples: int) -> tuple[LinkCut, int]:
        """Return the link cut of device `index` in `round`, and after how many steps it stalls (0: never)."""
        if not self.enabled:
            return LinkCut(round), 0
        rng = np.random.default_rng([self.seed, round, 7])
        order = rng.permutation(self.count)
        dropped = set(order[: round_half(self.count * DROP_SHARE)].tolist())
        order = rng.permutation(self.count)
        slow = set(order[: round_half(self.count * STRAGGLER_SHARE)].tolist())
        own = np.random.default_rng([self.seed, round, 8, index])
        state = str(own.choice(["downloading", "working", "uploading"], p=[0.35, 0.15, 0.5]))
        cut = LinkCut(round, state if index in dropped else "", float(own.uniform(0.1, 0.9)))
        steps = self.epochs * -(-examples // self.batch)
        return cut, max(1, int(steps * own.uniform(0.1, 0.9))) if index in slow and steps > 1 else 0


def round_half(x: float) -> int:
    """Round to the nearest integer, halves up."""
    return int(x + 0.5)


def is_due(device: Device, cut: LinkCut, chunks: int) -> bool:
    """Tell whether the device's link should break now."""
    if device.state != cut.state:
        return False
    if cut.state == "working":
        done, planned = device.steps
        return done >= cut.at * planned
    return device.chunk >= max(1, int(cut.at * chunks))


def apply_cuts(devices: list[Device], sizes: list[int], plan: FaultPlan, chunks: int) -> None:
    """Break and restore links as drawn. sizes: number of examples of each device."""
    now = time.monotonic()
    for index, device in enumerate(devices):
        cut = plan.cuts.get(index)
        if device.round and (cut is None or cut.round != device.round):
            cut, _ = plan.faults_of(index, device.round, sizes[index])
            plan.cuts[index] = cut
        if cut is not None:
            _apply(cut, device, now, chunks, np.random.default_rng([plan.seed, cut.round, 9, index]))


def _apply(cut: LinkCut, device: Device, now: float, chunks: int, rng: np.random.Generator) -> None:
    if cut.state and not cut.done and is_due(device, cut, chunks):
        cut.done = True
        cut.restore_s = now + rng.uniform(*OUTAGE_S)
        device.cut_link()
    elif cut.restore_s and now >= cut.restore_s:
        cut.restore_s = 0.0
        device.restore_link()


@dataclass(frozen=True)
class FleetSetup:
    """The devices of the demonstration, as passed to their process.

    urls: of the brokers or serial lines, one for each device. parts: their features and labels. chunks: of a model.
    finish_at_limit: whether a device that reaches its step limit sends what it has. rounds: planned number of rounds.
    """

    urls: list[str]
    parts: list[tuple[Features, Labels]]
    plan: FaultPlan
    chunks: int
    finish_at_limit: bool
    rounds: int


def main(pipe: Connection, setup: FleetSetup) -> None:
    """Run the devices until the pipe says stop; answer with their counters."""
    plan = setup.plan
    devices = [
        Device(
            f"device-{i:02}",
            setup.urls[i],
            federation="demo",
            trainer=CTrainer(WIDTHS, x, y),
            seed=1000 * plan.seed + i + 1,
            backoff_ms=(50, 500),
            retry_ms=(500, 4000),
        )
        for i, (x, y) in enumerate(setup.parts)
    ]
    sizes = [len(y) for _, y in setup.parts]
    for i, device in enumerate(devices):
        device.finish_at_limit = setup.finish_at_limit
        device.set_step_limits([0] + [plan.faults_of(i, r, sizes[i])[1] for r in range(1, setup.rounds + 1)])

    def stop() -> bool:
        apply_cuts(devices, sizes, plan, setup.chunks)
        return bool(pipe.poll())

    run_many(devices, stop, slice_ms=1)
    totals: dict[str, int] = {}
    for device in devices:
        for name, value in (device.counters | {f"link_{k}": v for k, v in device.link_counters.items()}).items():
            totals[name] = totals.get(name, 0) + value
        device.close()
    pipe.send(totals)
