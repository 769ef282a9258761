# SPDX-License-Identifier: Apache-2.0
"""`fedmote demo`: forty devices, a real broker, faults; then the comparison."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fedmote.broker import BrokerError, private_broker
from fedmote.demo import baselines, data, fleet
from fedmote.layout import dense
from fedmote.links.serial import Port
from fedmote.round import Policy, Record, Training
from fedmote.server import Federation, Server
from fedmote.session import Limits
from fedmote.testing.cable import Cable

ALPHA = 0.3
BATCH = 8
RATE = 0.2
CHUNK_ELEMENTS = 256
SHOWN = 12
SERIAL = 2


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    seed: int
    rounds: int
    local_epochs: int
    devices: int
    one_at_a_time: bool
    faults: bool


def _table(records: list[Record], rounds: int) -> Table:
    table = Table(title=f"fedmote demo: round {len(records)} of {rounds}")
    for column in ("round", "selected", "reported", "partial", "dropped", "accuracy", "seconds"):
        table.add_column(column, justify="right")
    for r in records[-SHOWN:]:
        accuracy = f"{r.metrics['accuracy']:.3f}"
        cells = (r.round, r.selected, r.reported, r.partial, r.dropped, accuracy, f"{r.seconds:.2f}")
        table.add_row(*map(str, cells))
    return table


class Demo:
    """One run: data, devices in a process of their own, the server here."""

    def __init__(self, options: Options) -> None:
        self.options = options
        rng = np.random.default_rng(options.seed)
        self.x, self.y, self.x_held, self.y_held = data.split(rng)
        self.parts = data.partition(self.y, options.devices, ALPHA, rng)
        self.layout = dense(fleet.WIDTHS)
        self.initial = self.layout.glorot(options.seed)
        self.records: list[Record] = []
        self.device_totals: dict[str, int] = {}

    def accuracy(self, model: NDArray[np.float32]) -> float:
        """Return the held-out accuracy."""
        return baselines.accuracy(model, fleet.WIDTHS, self.x_held, self.y_held)

    def federate(self, broker: str, on_round: Callable[[Record], None]) -> None:
        """Run the federation to its end: the last SERIAL devices on serial cables, the others on the broker."""
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
        urls = [broker] * (o.devices - len(cables)) + [f"serial://{cable.ends[1]}" for cable in cables]
        child = context.Process(
            target=fleet.main,
            args=(other, urls, o.seed, parts, o.local_epochs, BATCH, chunks, o.faults, o.one_at_a_time, o.rounds),
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
        """Return the accuracy of training on the pooled data, and the mean of each device's alone."""
        o = self.options
        settings: dict[str, Any] = {"batch": BATCH, "rate": RATE, "epochs": o.rounds * o.local_epochs}

        def trained(chosen: NDArray[np.int64] | slice, seed: int) -> float:
            model = baselines.train(self.initial, fleet.WIDTHS, self.x[chosen], self.y[chosen], **settings,
                                    rng=np.random.default_rng([o.seed, seed]))  # fmt: skip
            return self.accuracy(model)

        alone = [trained(part, 1 + i) for i, part in enumerate(self.parts)]
        return trained(slice(None), 0), float(np.mean(alone))

    def summary(self, pooled: float, alone: float, training_s: float) -> dict[str, Any]:
        """Return what --json writes."""
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


def _plot(path: Path, records: list[Record], pooled: float, alone: float) -> None:
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


@click.command()
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of everything that is drawn.")
@click.option("--rounds", default=30, show_default=True, type=click.IntRange(1))
@click.option("--local-epochs", default=5, show_default=True, type=click.IntRange(1))
@click.option("--devices", default=40, show_default=True, type=click.IntRange(2, 100))
@click.option("--broker", help="mqtt://host:port of a broker that runs already; without it a private mosquitto.")
@click.option("--one-at-a-time", is_flag=True, help="Devices one after the other: the same seed gives the same bits.")
@click.option("--no-faults", is_flag=True, help="No link breaks and no device is slow.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
@click.option("--out", default="fedmote-demo", show_default=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the plot and the model.")  # fmt: skip
def command(
    seed: int, rounds: int, local_epochs: int, devices: int, broker: str | None, one_at_a_time: bool, no_faults: bool,
    json_path: Path | None, out: Path,
) -> None:  # fmt: skip
    """Train one model across forty devices on handwritten digits, with broken links and slow devices."""
    console = Console()
    demo = Demo(Options(seed, rounds, local_epochs, devices, one_at_a_time, not no_faults))
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            url = broker or stack.enter_context(private_broker())
            live = stack.enter_context(Live(_table([], rounds), console=console, refresh_per_second=8))
            demo.federate(url, lambda record: live.update(_table(demo.records, rounds)))
    except (BrokerError, ConnectionError) as error:
        raise click.ClickException(str(error)) from error
    training_s = time.monotonic() - started
    with console.status("training on the pooled data, and each device alone, to compare"):
        pooled, alone = demo.compare()
    summary = demo.summary(pooled, alone, training_s)
    out.mkdir(parents=True, exist_ok=True)
    _plot(out / "accuracy.png", demo.records, pooled, alone)
    np.savez(out / "model.npz", **demo.layout.arrays(demo.model))  # type: ignore[arg-type]
    if json_path is not None:
        json_path.write_text(json.dumps(summary, indent=2) + "\n")
    console.print(f"held-out accuracy: [bold]{summary['accuracy']:.3f}[/] together, {pooled:.3f} with all data in one "
                  f"place, {alone:.3f} each device alone")  # fmt: skip
    partial = sum(r.partial for r in demo.records)
    dropped = sum(r.dropped for r in demo.records)
    console.print(f"{rounds} rounds in {training_s:.1f} s; {partial} partial updates counted, {dropped} lost links, "
                  f"{summary['chunks_resumed']} chunks not sent twice; {summary['bytes_up']:,} bytes up, "
                  f"{summary['bytes_down']:,} down")  # fmt: skip
    console.print(f"plot: {out / 'accuracy.png'}   model: {out / 'model.npz'}")
