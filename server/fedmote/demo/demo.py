# SPDX-License-Identifier: Apache-2.0
"""`fedmote demo`: forty devices, a real broker, faults; then the comparison."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from fedmote.datasets import baselines
from fedmote.datasets import digits as data
from fedmote.demo import fleet
from fedmote.faults.cable import Cable
from fedmote.fleet.limits import Limits
from fedmote.links.serial import Port
from fedmote.model.initial import glorot
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server

ALPHA = 0.3
BATCH = 8
RATE = 0.2
CHUNK_ELEMENTS = 256
SHOWN = 12
SERIAL = 2


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    seed: int
    rounds: int
    local_epochs: int
    devices: int
    one_at_a_time: bool
    faults: bool


def table(records: list[Record], rounds: int) -> Table:
    """Return the table of the last rounds."""
    table = Table(title=f"fedmote demo: round {len(records)} of {rounds}")
    for column in ("round", "selected", "reported", "partial", "dropped", "accuracy", "seconds"):
        table.add_column(column, justify="right")
    for r in records[-SHOWN:]:
        accuracy = f"{r.metrics['accuracy']:.3f}"
        cells = (r.round, r.selected, r.reported, r.partial, r.dropped, accuracy, f"{r.seconds:.2f}")
        table.add_row(*map(str, cells))
    return table


class Demo:
    """One run: the data, devices in another process, the server in this one."""

    def __init__(self, options: Options) -> None:
        self.options = options
        rng = np.random.default_rng(options.seed)
        self.x, self.y, self.x_held, self.y_held = data.split(rng)
        self.parts = data.partition(self.y, options.devices, ALPHA, rng)
        self.layout = dense(data.WIDTHS)
        self.initial = glorot(self.layout, options.seed)
        self.records: list[Record] = []
        self.device_totals: dict[str, int] = {}

    def accuracy(self, model: NDArray[np.float32]) -> float:
        """Return the held-out accuracy."""
        return baselines.accuracy(model, data.WIDTHS, self.x_held, self.y_held)

    def federate(self, broker: str, on_round: Callable[[Record], None]) -> None:
        """Run the whole federation: the last SERIAL devices on serial cables, the others on the broker."""
        with contextlib.ExitStack() as stack:
            cables = [stack.enter_context(Cable()) for _ in range(min(SERIAL, self.options.devices - 1))]
            self._federate(broker, cables, on_round)

    def _federate(self, broker: str, cables: list[Cable], on_round: Callable[[Record], None]) -> None:
        o = self.options
        policy = Policy(
            devices=o.devices,
            goal=0.75,
            soft_deadline_s=60.0 if o.one_at_a_time else 3.0,
            hard_deadline_s=120.0 if o.one_at_a_time else 6.0,
            chunk_elements=CHUNK_ELEMENTS,
            one_at_a_time=o.one_at_a_time,
            seed=o.seed,
        )
        training = Training(epochs=o.local_epochs, batch_size=BATCH, learning_rate=RATE)
        federation = Federation(
            "demo",
            self.layout,
            broker,
            training,
            policy,
            Limits(slots=max(1, o.devices)),
            initial=self.initial,
            ports=tuple(Port(cable.ends[0]) for cable in cables),
        )

        def committed(record: Record) -> None:
            self.records.append(record)
            on_round(record)

        server = Server(
            federation,
            evaluate=lambda model: {"accuracy": self.accuracy(model)},
            on_round=committed,
        )
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        parts = [(self.x[p], self.y[p]) for p in self.parts]
        chunks = -(-self.layout.elements // CHUNK_ELEMENTS)
        plan = fleet.FaultPlan(o.seed, len(parts), o.local_epochs, BATCH, o.faults)
        urls = [broker] * (o.devices - len(cables)) + [f"serial://{cable.ends[1]}" for cable in cables]
        child = context.Process(
            target=fleet.main,
            args=(other, fleet.FleetSetup(urls, parts, plan, chunks, o.one_at_a_time, o.rounds)),
            daemon=True,
        )
        try:
            asyncio.run(server.run(o.rounds, ready=child.start))
            pipe.send("stop")
            self.device_totals = pipe.recv() if pipe.poll(60) else {}
        finally:
            child.kill()
            child.join()
        self.model = server.model

    def compare(self) -> tuple[float, float]:
        """Return the accuracy of training on pooled data, and the mean accuracy of devices that train alone."""
        o = self.options
        sgd = baselines.Sgd(o.rounds * o.local_epochs, BATCH, RATE)

        def trained(chosen: NDArray[np.int64] | slice, seed: int) -> float:
            rng = np.random.default_rng([o.seed, seed])
            model = baselines.train(self.initial, data.WIDTHS, self.x[chosen], self.y[chosen], sgd, rng)
            return self.accuracy(model)

        alone = [trained(part, 1 + i) for i, part in enumerate(self.parts)]
        return trained(slice(None), 0), float(np.mean(alone))

    def summary(self, pooled: float, alone: float, training_s: float) -> dict[str, Any]:
        """Return the figures that --json writes."""
        totals = self.device_totals
        rounds = [
            {"round": r.round, "selected": r.selected, "reported": r.reported, "partial": r.partial,
             "dropped": r.dropped, "accuracy": r.metrics["accuracy"], "seconds": r.seconds}
            for r in self.records
        ]  # fmt: skip
        return {
            "seed": self.options.seed,
            "accuracy": self.records[-1].metrics["accuracy"],
            "pooled_accuracy": pooled,
            "alone_accuracy": alone,
            "devices": self.options.devices,
            "rounds": rounds,
            "bytes_up": totals.get("link_bytes_out", 0),
            "bytes_down": totals.get("link_bytes_in", 0),
            "chunks_resumed": totals.get("chunks_resumed_in", 0) + totals.get("chunks_resumed_out", 0),
            "training_seconds": training_s,
        }


def plot(path: Path, records: list[Record], pooled: float, alone: float) -> None:
    """Draw held-out accuracy over the rounds, beside the two baselines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    numbers = [r.round for r in records]
    axes.plot(numbers, [r.metrics["accuracy"] for r in records], marker="o", label="together, one federation")
    axes.axhline(pooled, color="black", linestyle="--", label="all data in one place, as many epochs")
    axes.axhline(alone, color="gray", linestyle=":", label="each device alone (mean)")
    axes.set(xlabel="round", ylabel="held-out accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
