# SPDX-License-Identifier: Apache-2.0
"""Client selection and deadlines: fixed and adaptive deadlines, tiers, and utility.

200 devices of the preset fleet of `fedmote simulate`, three virtual hours, 20 devices selected in each round, the same
three seeds for every row. The fixed deadlines, 10 and 15 minutes, are a guess without knowledge of the fleet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from common import median, note, save, table

from fedmote.demo.simulated_digits import PRESET_POLICY, PRESET_TRAINING, simulate_digits
from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.selection import Selection
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.rounds.policy import Policy
from fedmote.simulation.settings import FleetSettings
from fedmote.simulation.simulation import ServerSettings

SEEDS = (1, 2, 3)
HOURS = 3.0
DEVICES = 200
TARGET = 0.93
FIXED = replace(PRESET_POLICY, devices=20, select=20, goal=0.8)
ADAPTIVE = replace(FIXED, adaptive=True, min_deadline_s=5.0)
WAYS: dict[str, tuple[Policy, Selection]] = {
    "fixed deadlines, random": (FIXED, Selection(by="random")),
    "fixed deadlines, fair": (FIXED, Selection()),
    "adaptive, random": (ADAPTIVE, Selection(by="random")),
    "adaptive, fair": (ADAPTIVE, Selection()),
    "adaptive, fair, 3 tiers": (ADAPTIVE, Selection(tiers=3)),
    "adaptive, utility": (ADAPTIVE, Selection(by="utility")),
}


def run(policy: Policy, selection: Selection, seed: int) -> dict[str, float]:
    """Run the fleet; return accuracy, rounds, and how evenly devices were selected."""
    fleet = FleetSettings(devices=DEVICES, hours=HOURS, seed=seed)
    virtual = simulate_digits(
        fleet, ServerSettings(FedAvg(), PRESET_TRAINING, replace(policy, seed=seed), selection=selection)
    )
    asked: Counter[str] = Counter()
    send = virtual.sessions.send_plan

    def plan(device: str, assignment: Assignment) -> None:
        asked[device] += 1
        send(device, assignment)

    virtual.sessions.send_plan = plan  # type: ignore[method-assign]  # counts what is sent
    commits = virtual.run(HOURS).commits
    reached = next((commit.at_s / 60 for commit in commits if commit.accuracy >= TARGET), float("inf"))
    counts = sorted(asked.values())
    reported = sum(commit.record.reported for commit in commits)
    return {
        "minutes": reached,
        "rounds": len(commits),
        "accuracy": sum(commit.accuracy for commit in commits[-10:]) / len(commits[-10:]),
        "partial": sum(commit.record.partial for commit in commits) / reported,
        "least": counts[len(counts) // 10] / (sum(counts) / len(counts)),
        "most": counts[-1 - len(counts) // 10] / (sum(counts) / len(counts)),
    }


def main() -> None:
    rows: list[tuple[str, ...]] = [
        ("", f"minutes to {TARGET}", "rounds", "accuracy at the end", "in part", "asked, in units of the mean")
    ]
    figures = {}
    for name, (policy, selection) in WAYS.items():
        runs = [run(policy, selection, seed) for seed in SEEDS]
        of = figures[name] = {key: median([one[key] for one in runs]) for key in runs[0]}
        rows.append(
            (name, f"{of['minutes']:.0f}", f"{of['rounds']:.0f}", f"{of['accuracy']:.3f}", f"{of['partial']:.0%}",
             f"{of['least']:.2f} to {of['most']:.2f}")
        )  # fmt: skip
    table("Client selection and deadlines", rows)
    note("asked: the 10th and the 90th percentile of how often a device was")
    note(f"medians of {len(SEEDS)} seeds; {DEVICES} devices of the preset, {HOURS:g} virtual hours")
    save("selection", figures)


if __name__ == "__main__":
    main()
