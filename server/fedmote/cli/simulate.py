# SPDX-License-Identifier: Apache-2.0
"""`fedmote simulate`: simulate a fleet's day in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fedmote.config.settings import load
from fedmote.demo.simulated_digits import LAYOUT, PRESET_POLICY, PRESET_TRAINING, simulate_digits
from fedmote.errors import ConfigError
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.simulation import settings
from fedmote.simulation.settings import FleetSettings
from fedmote.simulation.simulation import Commit, Result, ServerSettings, summary

SHOWN = 12


def _read(federation: Path | None) -> tuple[FleetSettings, ServerSettings]:
    """Read the file, or return the preset without one. ConfigError: what is wrong in the file."""
    if federation is None:
        return FleetSettings(), ServerSettings(FedAvg(), PRESET_TRAINING, PRESET_POLICY)
    read = load(federation)
    if read.layout.crc32 != LAYOUT.crc32:
        tensors = ", ".join(f'{{ name = "{t.name}", shape = {list(t.shape)} }}' for t in LAYOUT.tensors)
        raise ConfigError(f"{federation}: model.tensors: a simulated fleet learns the digits; "
                                 f"name its model: tensors = [{tensors}]")  # fmt: skip
    server = ServerSettings(
        read.make_strategy(), read.training, read.policy, read.limits, read.initial, read.selection, read.pace
    )
    return settings.load(federation), server


@click.command()
@click.argument("federation", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--devices", type=click.IntRange(1, 100_000), help="Number of devices. [default: 1000]")
@click.option("--hours", type=click.FloatRange(0.01, 24 * 366), help="Hours to simulate. [default: 24]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of all random numbers. [default: 1]")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file."
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Plot accuracy over the hours into this file."
)
def simulate(
    federation: Path | None, devices: int | None, hours: float | None, seed: int | None, json_path: Path | None,
    plot: Path | None,
) -> None:  # fmt: skip
    """Run a virtual fleet for a virtual day: the real C clients and the real rounds on one virtual clock.

    FEDERATION has the settings and the fleet ([simulation], docs/simulation.md); without it, a preset is used.
    """
    console = Console()
    fleet, server = _read(federation)
    seed = fleet.seed if seed is None else seed
    fleet = replace(fleet, devices=devices or fleet.devices, hours=hours or fleet.hours, seed=seed)
    run = simulate_digits(fleet, server)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("virtual hours", total=fleet.hours)
        for part in range(1, 101):
            result = run.run(fleet.hours * part / 100)
            progress.update(task, completed=fleet.hours * part / 100)
    _show(console, fleet, result)
    if json_path is not None:
        json_path.write_text(json.dumps({"seed": fleet.seed, **summary(result)}, indent=2) + "\n")
    if plot is not None:
        plot_commits(plot, result.commits)


def _show(console: Console, fleet: FleetSettings, result: Result) -> None:
    table = Table(title=f"{fleet.devices} devices, {fleet.hours:g} hours, seed {fleet.seed}")
    for column in ("hour", "round", "selected", "reported", "partial", "lost links", "minutes", "accuracy"):
        table.add_column(column, justify="right")
    commits = result.commits
    for i in np.unique(np.linspace(0, len(commits) - 1, min(SHOWN, len(commits))).astype(int)):
        commit, record = commits[i], commits[i].record
        table.add_row(f"{commit.at_s / 3600:.2f}", f"{record.round}", f"{record.selected}", f"{record.reported}",
                      f"{record.partial}", f"{record.dropped}", f"{record.seconds / 60:.1f}",
                      f"{commit.accuracy:.3f}")  # fmt: skip
    console.print(table)
    classes = Table()
    for column in ("class", "updates", "in part", "megabytes up", "connections", "withdrawn"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, counted in result.clients.items():
        classes.add_row(name, f"{counted['updates']:,}", f"{counted['partial_updates']:,}",
                        f"{counted['bytes_out'] / 1e6:.1f}", f"{counted['connections']:,}",
                        f"{counted['withdrawals']:,}")  # fmt: skip
    console.print(classes)
    console.print(f"{len(commits)} rounds, {result.events:,} events, {result.steps:,} steps of training; "
                  f"{result.most_awake} C clients at once at most")  # fmt: skip
    console.print(f"digest {result.digest}", highlight=False)


def plot_commits(path: Path, commits: list[Commit]) -> None:
    """Plot held-out accuracy and the reporting devices over the hours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=(2, 1))
    hours = [commit.at_s / 3600 for commit in commits]
    above.plot(hours, [commit.accuracy for commit in commits])
    above.set(ylabel="held-out accuracy", ylim=(0, 1))
    below.plot(hours, [c.record.selected for c in commits], color="gray", label="selected")
    below.plot(hours, [c.record.reported for c in commits], label="reported")
    below.plot(hours, [c.record.partial for c in commits], label="in part")
    below.set(xlabel="hour", ylabel="devices", ylim=(0, None))
    below.legend(loc="lower right")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
