# SPDX-License-Identifier: Apache-2.0
"""A virtual day of a thousand devices: the seconds it takes, and the accuracy it reaches.

The preset fleet of `fedmote simulate`: sensors, trackers and phones that connect and disconnect, 64 of the online ones
in each round. The real C client and the real server code run for each message and each training step. Also with a tenth
and ten times as many devices: the training is about the same, but more idle devices connect and disconnect.
"""

from __future__ import annotations

from dataclasses import replace

from common import note, save, table

from fedmote.demo.simulated_digits import PRESET_POLICY, PRESET_TRAINING, simulate_digits
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.simulation.settings import FleetSettings
from fedmote.simulation.simulation import Result, ServerSettings

FLEETS = (100, 1000, 10_000)


def day(devices: int) -> Result:
    server = ServerSettings(FedAvg(), PRESET_TRAINING, PRESET_POLICY)
    settings = replace(FleetSettings(), devices=devices)
    return simulate_digits(settings, server).run(settings.hours)


def main() -> None:
    rows: list[tuple[str, ...]] = [
        ("devices", "real s", "virtual s a real s", "rounds", "updates", "events", "clients at once", "accuracy")
    ]
    figures = {}
    for devices in FLEETS:
        result = day(devices)
        updates = sum(commit.record.reported for commit in result.commits)
        rows.append(
            (f"{devices:,}", f"{result.real_s:.1f}", f"{result.virtual_s / result.real_s:,.0f}",
             f"{len(result.commits)}", f"{updates:,}", f"{result.events:,}", f"{result.most_awake}",
             f"{result.commits[-1].accuracy:.3f}")
        )  # fmt: skip
        figures[str(devices)] = {
            "real_s": result.real_s, "virtual_s": result.virtual_s, "events": result.events,
            "rounds": len(result.commits), "updates": updates, "clients": result.most_awake,
        }  # fmt: skip
    table("A virtual day", rows)
    note("on one processor core; each update is trained by a C client of its own")
    save("simulate", figures)


if __name__ == "__main__":
    main()
