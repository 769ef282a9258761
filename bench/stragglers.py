# SPDX-License-Identifier: Apache-2.0
"""Policies for devices that are ten times slower: time and rounds to accuracy 0.93, and accuracy on their labels.

The demo's fleet (40 devices, digits, 64-32-10, five local epochs) in simulated time. Twelve devices do a tenth of the
steps per second and hold nine tenths of the examples of two labels, so the results show whether the model learns from
them. The same three seeds for every policy: the same data, initial model, speeds and orders.

Plots docs/img/stragglers.png, which docs/stragglers.md shows; `stragglers.py --plot PATH` plots into another file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, median, note, save, table

from fedmote.datasets import baselines
from fedmote.datasets import digits as data
from fedmote.demo.simulated_digits import digits_workload
from fedmote.fleet.limits import Limits
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova
from fedmote.learning.strategy import Strategy
from fedmote.model.layout import Model
from fedmote.rounds.policy import Policy, Training
from fedmote.simulation.network import LinkModel
from fedmote.simulation.population import DeviceClass, Population, populate
from fedmote.simulation.simulation import Commit, ServerSettings, Simulation
from fedmote.simulation.workload import Workload

SEEDS = (1, 2, 3)
DEVICES, STRAGGLERS = 40, 12
STEPS_PER_S, SLOWER = 5.0, 10
LABELS = (8, 9)
"""The labels of which the stragglers hold most examples."""
HELD_BY_STRAGGLERS = 0.9
ALPHA = 0.3
LEAST = 8
TARGET = 0.93
DEADLINE_S = 15.0
HOURS, LONGEST_HOURS = 1.0, 3.0
"""The hour at which policies are compared, and the longest wait for the target."""
LATELY = 0.9
"""Accuracy is the mean over the last tenth of the time, since single rounds vary by chance."""
TRAINING = Training(epochs=5, batch_size=8, learning_rate=0.2)
ALL = Policy(devices=DEVICES, goal=1.0, soft_deadline_s=1e5, hard_deadline_s=1e5, encodings=("float32",))
CUT = replace(ALL, goal=1 - STRAGGLERS / DEVICES, soft_deadline_s=DEADLINE_S, hard_deadline_s=2 * DEADLINE_S)
"""The notice is sent when as many have reported as are fast. A straggler finishes its step and sends its update."""
BUFFERED = replace(ALL, buffer=10, max_staleness=100, staleness_exponent=0.5)
"""Buffer size and discount of the paper; with this limit of staleness no straggler is too late."""

Examples = list[np.ndarray[Any, Any]]  # indices of each device's examples


@dataclass(frozen=True)
class Way:
    """One way to treat stragglers."""

    name: str
    strategy: Callable[[], Strategy]
    policy: Policy


WAYS = {
    "discard": Way("discard stragglers", FedAvg, replace(CUT, partial=False, hard_deadline_s=DEADLINE_S)),
    "wait": Way("wait for all", FedAvg, ALL),
    "partial": Way("partial updates, FedAvg", FedAvg, CUT),
    "nova": Way("partial updates, FedNova", FedNova, CUT),
    "buffered": Way("FedBuff", FedAvg, BUFFERED),
    "both": Way(
        "FedBuff, partial, FedNova",
        FedNova,
        replace(BUFFERED, soft_deadline_s=DEADLINE_S, hard_deadline_s=CUT.hard_deadline_s),
    ),
}


def deal(y: data.Labels, random: np.random.Generator) -> Examples:
    """Deal the examples as the demo does, but most of LABELS to the stragglers, which are the last devices."""
    theirs = np.isin(y, LABELS) & (random.random(len(y)) < HELD_BY_STRAGGLERS)
    while True:
        parts: Examples = [np.zeros(0, np.int64)] * DEVICES
        for chosen, first in ((theirs, DEVICES - STRAGGLERS), (~theirs & np.isin(y, LABELS), 0)):
            parts = _add(parts, y, chosen, first, DEVICES if first else DEVICES - STRAGGLERS, random)
        parts = _add(parts, y, ~np.isin(y, LABELS), 0, DEVICES, random)
        if min(map(len, parts)) >= LEAST:
            return parts


def _add(
    parts: Examples, y: data.Labels, chosen: np.ndarray[Any, Any], first: int, end: int, random: np.random.Generator
) -> Examples:
    """Deal the chosen examples to the devices `first` to `end`."""
    index = np.flatnonzero(chosen)
    dealt = data.partition(y[index], end - first, ALPHA, random, least=0)
    return [
        np.concatenate([part, index[dealt[i - first]]]) if first <= i < end else part for i, part in enumerate(parts)
    ]


@dataclass(frozen=True)
class StragglerFleet:
    """The devices, their workload, and the examples of each, as indices of the labels y."""

    population: Population
    workload: Workload
    y: data.Labels
    parts: Examples


def straggler_fleet(seed: int) -> StragglerFleet:
    """Make the fleet of a seed. Its figure "labels" is the accuracy on the stragglers' labels."""
    random = np.random.default_rng(seed)
    x, y, x_held, y_held = data.split(random)
    link = LinkModel(mean_down_s=0)
    classes = [
        DeviceClass("fast", steps_per_s=STEPS_PER_S, link=link),
        DeviceClass("straggler", steps_per_s=STEPS_PER_S / SLOWER, link=link),
    ]
    kind = np.repeat([0, 1], [DEVICES - STRAGGLERS, STRAGGLERS])
    parts = deal(y, random)
    theirs = np.isin(y_held, LABELS)
    workload = digits_workload(x, y, parts, (x_held, y_held))

    def evaluate(model: Model) -> dict[str, float]:
        return workload.evaluate(model) | {
            "labels": baselines.accuracy(model, data.WIDTHS, x_held[theirs], y_held[theirs])
        }

    return StragglerFleet(populate(classes, kind, random), replace(workload, evaluate=evaluate), y, parts)


def run(
    way: Way, seed: int, hours: float = HOURS, longest_hours: float = LONGEST_HOURS, target: float = TARGET
) -> list[Commit]:
    """Run the fleet for these hours, and on until the mean accuracy reaches the target; return the commits."""
    fleet = straggler_fleet(seed)
    server = ServerSettings(way.strategy(), TRAINING, replace(way.policy, seed=seed), Limits(slots=DEVICES))
    simulation = Simulation(fleet.population, fleet.workload, server, seed=seed, settle_s=0)
    commits = simulation.run(hours).commits
    if smoothed(commits, target) == float("inf"):
        commits = simulation.run(longest_hours, lambda commit: lately(simulation.commits) >= target).commits
    return commits


def lately(commits: Sequence[Commit]) -> float:
    """Return the accuracy at the last commit: the mean over the last tenth of the time."""
    since = LATELY * commits[-1].at_s
    return float(np.mean([c.accuracy for c in takewhile(lambda c: c.at_s > since, reversed(commits))]))


def smoothed(commits: Sequence[Commit], target: float) -> float:
    """Return when the mean over the last tenth of the time reached the target; a single model may by chance."""
    reached = (c.at_s for i, c in enumerate(commits) if lately(commits[: i + 1]) >= target)
    return next(reached, float("inf"))


def first_at(commits: list[Commit], target: float) -> dict[str, float]:
    """Return the hour, the rounds and the megabytes until a model first reached the target; infinite: none did."""
    reached = next((c for c in commits if c.accuracy >= target), None)
    if reached is None:
        return dict.fromkeys(("seconds", "rounds", "megabytes"), float("inf"))
    megabytes = (reached.bytes_up + reached.bytes_down) / 1e6
    return {"seconds": reached.at_s, "rounds": reached.record.round, "megabytes": megabytes}


def figures(commits: list[Commit], hours: float = HOURS, target: float = TARGET) -> dict[str, float]:
    """Return a run's figures: when it reached the target, and its accuracy after these hours."""
    timely = [c for c in commits if c.at_s <= 3600 * hours]
    last = [c for c in timely if c.at_s > LATELY * 3600 * hours] or timely[-1:]
    return first_at(commits, target) | {
        "smoothed": smoothed(commits, target),
        "accuracy": float(np.mean([c.accuracy for c in last])),
        "labels": float(np.mean([c.record.metrics["labels"] for c in last])),
        "all_rounds": len(timely),
    }


def smooth(commits: list[Commit], metric: str, minutes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The metric's mean over the last tenth of the time, at these times; nothing before the first round is done."""
    at = np.array([commit.at_s / 60 for commit in commits])
    values = np.cumsum([0.0] + [commit.record.metrics[metric] for commit in commits])
    end = np.searchsorted(at, minutes, side="right")
    start = np.minimum(np.searchsorted(at, LATELY * minutes, side="right"), np.maximum(end - 1, 0))
    known = (end > 0) & (minutes <= at[-1])
    return np.where(known, (values[end] - values[start]) / np.maximum(end - start, 1), np.nan)


def draw(path: Path, runs: dict[str, list[list[Commit]]]) -> None:
    """Plot accuracy over virtual time, on all labels and on the stragglers': each seed and their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(10, 4.5), sharey=True)
    minutes = np.geomspace(0.1, 60 * HOURS, 200)
    for axes, metric, title in zip(
        both, ("accuracy", "labels"), ("all labels", f"labels {LABELS[0]} and {LABELS[1]}"), strict=True
    ):
        for i, (name, seeds) in enumerate(runs.items()):
            curves = np.array([smooth(commits, metric, minutes) for commits in seeds])
            axes.plot(minutes, curves.T, f"C{i}", linewidth=0.5, alpha=0.5)
            axes.plot(minutes, curves.mean(0), f"C{i}", linewidth=2, label=WAYS[name].name)
        axes.set(xlabel="virtual minutes", title=title, xscale="log", ylim=(0, 1))
        axes.grid(alpha=0.3)
    both[0].axhline(TARGET, color="black", linestyle=":", linewidth=1)
    both[0].set(ylabel="held-out accuracy")
    both[0].legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians over the seeds."""
    theirs = f"on {LABELS[0]}, {LABELS[1]}"
    columns = ("policy", f"minutes to {TARGET}", "smoothed", "rounds to it", "MB to it", f"accuracy after {HOURS:g} h")
    rows: list[tuple[str, ...]] = [(*columns, theirs, "rounds in it")]
    for name, runs in found.items():
        middle = {key: median([run[key] for run in runs]) for key in runs[0]}
        minutes_to_it = [f"{middle[key] / 60:.1f}" for key in ("seconds", "smoothed")]
        to_it = [*minutes_to_it, f"{middle['rounds']:.0f}", f"{middle['megabytes']:.1f}"]
        ended = (f"{middle['accuracy']:.3f}", f"{middle['labels']:.3f}", f"{middle['all_rounds']:.0f}")
        rows.append((WAYS[name].name, *(cell.replace("inf", "never") for cell in to_it), *ended))
    table(f"{STRAGGLERS} of {DEVICES} devices at a tenth of the speed, virtual time", rows)
    note(f"medians of {len(SEEDS)} seeds; accuracy is the mean over the last tenth of the time")
    note("smoothed: until that mean is there. Each seed's minutes, and smoothed:")
    for name, runs in found.items():
        minutes = ", ".join(f"{run['seconds'] / 60:.1f} / {run['smoothed'] / 60:.1f}" for run in runs)
        note(f"  {WAYS[name].name}: {minutes.replace('inf', 'never')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/img/stragglers.png", help="draw there")
    plot = parser.parse_args().plot
    runs = {name: [run(way, seed) for seed in SEEDS] for name, way in WAYS.items()}
    found = {name: [figures(commits) for commits in seeds] for name, seeds in runs.items()}
    show(found)
    save("stragglers", found)
    draw(plot, runs)


if __name__ == "__main__":
    main()
