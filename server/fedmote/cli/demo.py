# SPDX-License-Identifier: Apache-2.0
"""`fedmote demo`."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.live import Live

from fedmote.demo.demo import Demo, Options, plot, table
from fedmote.links.broker import private_broker


@click.command()
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of all random numbers.")
@click.option("--rounds", default=30, show_default=True, type=click.IntRange(1))
@click.option("--local-epochs", default=5, show_default=True, type=click.IntRange(1))
@click.option("--devices", default=40, show_default=True, type=click.IntRange(2, 100))
@click.option("--broker", help="mqtt://host:port of a running broker. [default: a private mosquitto]")
@click.option("--one-at-a-time", is_flag=True, help="Run devices in turn: the same seed gives the same bits.")
@click.option(
    "--no-faults", "faults", flag_value=False, default=True, type=bool, help="Without broken links and slow devices."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file."
)
@click.option("--out", default="fedmote-demo", show_default=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the plot and the model.")  # fmt: skip
def demo(broker: str | None, json_path: Path | None, out: Path, **options: Any) -> None:
    """Train one model across forty devices on handwritten digits, with broken links and slow devices."""
    console = Console()
    run = Demo(Options(**options))
    rounds = run.options.rounds
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        url = broker or stack.enter_context(private_broker())
        live = stack.enter_context(Live(table([], rounds), console=console, refresh_per_second=8))
        run.federate(url, lambda record: live.update(table(run.records, rounds)))
    training_s = time.monotonic() - started
    with console.status("training on the pooled data, and each device alone, to compare"):
        pooled, alone = run.compare()
    summary = run.summary(pooled, alone, training_s)
    out.mkdir(parents=True, exist_ok=True)
    plot(out / "accuracy.png", run.records, pooled, alone)
    np.savez(out / "model.npz", **run.layout.arrays(run.model))  # type: ignore[arg-type]
    if json_path is not None:
        json_path.write_text(json.dumps(summary, indent=2) + "\n")
    console.print(f"held-out accuracy: [bold]{summary['accuracy']:.3f}[/] together, {pooled:.3f} with all data in one "
                  f"place, {alone:.3f} each device alone")  # fmt: skip
    partial = sum(r.partial for r in run.records)
    dropped = sum(r.dropped for r in run.records)
    console.print(f"{rounds} rounds in {training_s:.1f} s; {partial} partial updates counted, {dropped} lost links, "
                  f"{summary['chunks_resumed']} chunks not sent twice; {summary['bytes_up']:,} bytes up, "
                  f"{summary['bytes_down']:,} down")  # fmt: skip
    console.print(f"plot: {out / 'accuracy.png'}   model: {out / 'model.npz'}")
