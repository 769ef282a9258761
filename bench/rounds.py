# SPDX-License-Identifier: Apache-2.0
"""Duration of a round without local work, compared with Flower's deployment engine.

Ours: mosquitto, the real server with its database on disk, and 2, 10 and 100 C clients in another process. A round is
measured from the plan to the durable commit, with every device's update folded. Flower's: one SuperLink and two
SuperNodes, FedAvg without evaluation, a client that returns the model. "With start-up" is measured from the start of
the first process to the end of round 5, with two devices in two processes on both sides. Flower is measured with its
defaults, and with its SuperExec polling for tasks every 10 ms instead of every second.

`rounds.py --serve DEVICES PROCESSES ROUNDS` runs one federation of ours and prints its figures as JSON.
`rounds.py --profile DEVICES ROUNDS` prints a profile of the server.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from common import BENCH, FEDERATION, WIDTHS, flwr_python, median, note, save, table

COUNTS = (2, 10, 100)
ROUNDS = 15
FLWR_NODES = 2
FLWR_ROUNDS = 5


def federate(devices: int, processes: int, rounds: int, profile: cProfile.Profile | None = None) -> dict[str, Any]:
    """Run a federation; return the seconds of each round, and the server's processor time."""
    from fedmote.links.broker import private_broker
    from fedmote.model.layout import dense
    from fedmote.rounds.policy import Policy
    from fedmote.rounds.record import Record
    from fedmote.server.federation import Federation
    from fedmote.server.server import Server

    seconds: list[float] = []
    records: list[Record] = []
    busy: list[float] = []
    started = [0.0]

    def evaluate(model: Any) -> dict[str, float]:
        started[0] = server.rounds.started or 0.0  # the round's own record ends before the commit
        return {}

    def committed(record: Record) -> None:
        seconds.append(time.monotonic() - started[0])
        records.append(record)
        busy.append(time.process_time())

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmote-bench-"))
        broker = stack.enter_context(private_broker())
        fleets = []
        for i in range(processes):
            share = devices // processes
            command: list[str | Path] = [sys.executable, BENCH / "devices.py", broker, str(i * share), str(share)]
            fleets.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        policy = Policy(devices=devices, goal=1.0, min_reports=devices)
        federation = Federation(
            FEDERATION, dense(WIDTHS), broker, policy=policy, database=Path(folder) / "bench.sqlite"
        )
        server = Server(federation, evaluate=evaluate, on_round=committed)
        try:
            if profile is not None:
                profile.enable()
            asyncio.run(server.run(rounds))
            if profile is not None:
                profile.disable()
        finally:
            for fleet in fleets:
                fleet.communicate(b"stop\n")
    if any(record.reported != devices for record in records):
        raise RuntimeError(f"not every device's update was folded: {records}")
    return {"seconds": seconds, "server_cpu": list(np.diff(busy))}


def ours(devices: int, processes: int, rounds: int) -> tuple[dict[str, Any], float]:
    """Run a federation in new processes; return its figures, and the seconds from start to end."""
    started = time.monotonic()
    command = [sys.executable, __file__, "--serve", str(devices), str(processes), str(rounds)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return json.loads(result.stdout.splitlines()[-1]), time.monotonic() - started


def flower() -> dict[str, float]:
    """Flower's figures: seconds with start-up, and of one round."""
    from flower import deployment

    with deployment(FLWR_NODES) as running:
        stamps = running.run(FLWR_ROUNDS)
        spans = [stamps[i + 1] - stamps[i] for i in range(FLWR_ROUNDS)]
        return {"with start-up": stamps[FLWR_ROUNDS] - running.started, "round": median(spans)}


def measure() -> None:
    """Measure everything, Flower between ours."""
    python = flwr_python()
    figures: dict[str, Any] = {"ours with start-up": ours(2, 2, FLWR_ROUNDS)[1]}
    figures["2 devices"], _ = ours(2, 1, ROUNDS)
    if python is not None:
        figures["flwr"] = flower()
    for count in COUNTS[1:]:
        figures[f"{count} devices"], _ = ours(count, 1, ROUNDS)
    figures["ratios"] = show(figures)
    save("rounds", figures)


def show(figures: dict[str, Any]) -> dict[str, float]:
    """Print medians and ratios; return the ratios."""
    flwr, mine = figures.get("flwr"), figures["ours with start-up"]
    ratios: dict[str, float] = {}
    rows: list[tuple[str, ...]] = [
        ("plan to commit", "median ms", "longest ms", "server CPU ms", "flwr's 2 nodes / ours")
    ]
    for count in COUNTS:
        result = figures[f"{count} devices"]
        seconds, cpu = result["seconds"][1:], result["server_cpu"]
        value = median(seconds)
        ratio = "-"
        if flwr is not None:
            ratios[f"round, flwr's 2 nodes / ours of {count}"] = flwr["round"] / value
            ratio = f"{flwr['round'] / value:.0f}"
        rows.append(
            (f"{count} devices", f"{1e3 * value:.1f}", f"{1e3 * max(seconds):.1f}", f"{1e3 * median(cpu):.1f}", ratio)
        )
    if flwr is not None:
        rows.append(("flwr, 2 nodes", f"{1e3 * flwr['round']:.0f}"))
    table("Round without local work", rows)
    rows = [("first process to the end of round 5, two devices", "s", "flwr / ours"), ("ours", f"{mine:.2f}")]
    if flwr is not None:
        value = flwr["with start-up"]
        ratios["five rounds with start-up, flwr / ours"] = value / mine
        rows.append(("flwr", f"{value:.2f}", f"{value / mine:.1f}"))
    table("Five rounds with start-up", rows)
    note("ours includes the exit of all processes, flwr's does not")
    return ratios


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        devices, processes, rounds = (int(value) for value in sys.argv[2:5])
        print(json.dumps(federate(devices, processes, rounds)))
    elif sys.argv[1:2] == ["--profile"]:
        profile = cProfile.Profile()
        result = federate(int(sys.argv[2]), 1, int(sys.argv[3]), profile)
        print(f"median {1e3 * median(result['seconds'][1:]):.1f} ms, under the profiler")
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
    else:
        measure()


if __name__ == "__main__":
    main()
