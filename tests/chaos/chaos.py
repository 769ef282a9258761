# SPDX-License-Identifier: Apache-2.0
"""The chaos run: real processes on two hosts with a bad network, where every process is killed at times.
`python tests/chaos/chaos.py --minutes 30` (root, Linux) prints a report as JSON and fails if the ledger is not exact.
tests/chaos/test_chaos.py runs a short one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ledger import Commit, Fold, Ledger, Verdict, judge
from resident import Sample, growths, leaks

from fedmote.faults.tun import ADDRESS, SIDES, Network, Side

HERE = Path(__file__).resolve().parent
PORT = 1883
SAMPLE_S = 2.0
GAP_S = 300.0  # longest time between two commits
LEAKS_SHOW_MIN = 20.0  # in a shorter run, the start of a process looks like a leak
STARTS_WITHIN_S = 60.0
NO_BROKER = 3  # exit code of server_process.py when there is no broker
TCP = {
    "tcp_rto_max_ms": 1500,  # by default, TCP doubles its retry delay up to two minutes
    "tcp_thin_linear_timeouts": 1,  # the same for kernels before 6.15, which lack the other
}
"""What an operator sets on gateway and devices that have such a network between them (docs/durability.md)."""


@dataclass(frozen=True)
class Plan:
    """The plan of a run. Times in seconds."""

    seconds: float = 1800.0
    devices: int = 20
    loss: float = 0.3
    delay: float = 0.5
    jitter: float = 0.5
    broker_every_s: float = 60.0
    server_restarts: int = 10
    calm_s: float = 600.0  # at the end the server is not killed, so that its memory shows a leak
    power_every_s: float = 120.0
    patience_s: float = 25.0  # the server's, until its closing notice
    rounds: int = 0  # at least: the run goes on until they are committed, but not for more than GAP_S
    seed: int = 1


@dataclass
class Report:
    """The result of a run."""

    plan: Plan
    verdict: Verdict
    broker_restarts: int
    server_restarts: int
    power_cuts: int
    packets: int
    packets_lost: int
    memory: list[Sample] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the summary that the command prints."""
        return {
            "minutes": self.plan.seconds / 60,
            **asdict(self.verdict),
            "broker_restarts": self.broker_restarts,
            "server_restarts": self.server_restarts,
            "power_cuts": self.power_cuts,
            "packets": self.packets,
            "packets_lost": self.packets_lost,
            "memory_mib": {
                name: round(sum(sizes) / len(sizes) / 2**20, 1)
                for name in ("broker", "devices", "server")
                if (sizes := [sample.size for sample in self.memory if sample.name == name])
            },
            "memory_growth": {name: round(share, 4) for name, share in growths(self.memory).items()},
        }


class Hosts:
    """The processes, and the network between them."""

    def __init__(self, plan: Plan, folder: Path, network: Network) -> None:
        self.plan, self.folder, self.network = plan, folder, network
        self.url = f"mqtt://{ADDRESS['server']}:{PORT}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = {"broker": 0, "server": 0}
        (folder / "mosquitto.conf").write_text(
            f"listener {PORT} {ADDRESS['server']}\nallow_anonymous true\npersistence false\nuser root\n"
            f"set_tcp_nodelay true\nmax_queued_messages 0\nlog_dest file {folder / 'broker.log'}\n"
        )

    def start(self, name: str) -> None:
        """Start one process: broker, server or devices."""
        python, each = sys.executable, str(self.plan.devices)
        path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
        commands: dict[str, tuple[Side, list[str]]] = {
            "broker": ("server", [path or "mosquitto", "-c", str(self.folder / "mosquitto.conf")]),
            "server": ("server", [python, str(HERE / "server_process.py"), self.url, str(self.folder), each,
                                  str(self.plan.patience_s)]),
            "devices": ("device", [python, str(HERE / "devices_process.py"), self.url, str(self.folder), each,
                                   str(self.plan.power_every_s)]),
        }  # fmt: skip
        side, command = commands[name]
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 (the process has it)
        with log, self.network.inside(side):
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop one process."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(STARTS_WITHIN_S)

    def end_all(self) -> None:
        """Kill all running processes."""
        for name in list(self.processes):
            self.end(name, signal.SIGKILL)

    def restart(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a process and start it again."""
        self.end(name, how)
        self.start(name)
        self.restarts[name] += 1

    def check(self) -> None:
        """Check that no process has ended by itself. A server without a broker may: it is restarted."""
        server = self.processes["server"]
        if server.poll() == NO_BROKER:
            self.start("server")
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended by itself: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def memory(self) -> list[Sample]:
        """Return the resident sizes now."""
        now, out = time.monotonic(), []
        for name, process in self.processes.items():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        out.append(Sample(now, name, process.pid, 1024 * int(line.split()[1])))
        return out


def tune(network: Network) -> list[str]:
    """Set the TCP options on both hosts; return those that this kernel supports."""
    known = [name for name in TCP if Path(f"/proc/sys/net/ipv4/{name}").exists()]
    for side in SIDES:
        with network.inside(side):
            for name in known:
                Path(f"/proc/sys/net/ipv4/{name}").write_text(str(TCP[name]))
    return known


def events(plan: Plan) -> Iterator[tuple[float, str, signal.Signals]]:
    """Return the kills in order: (seconds from the start, process, signal)."""
    draw = random.Random(plan.seed)
    out = []
    at = plan.broker_every_s
    while at < plan.seconds:
        out.append((at, "broker", signal.SIGTERM))
        at += plan.broker_every_s
    each = (plan.seconds - plan.calm_s) / plan.server_restarts
    for i in range(plan.server_restarts):
        at = each * (i + draw.uniform(0.3, 0.9))
        out.append((at, "server", signal.SIGKILL if i % 2 else signal.SIGTERM))
    yield from sorted(out)


def run(plan: Plan, folder: Path) -> Report:
    """Run the plan and check the result."""
    network = Network(loss=plan.loss, delay=plan.delay, jitter=plan.jitter, seed=plan.seed)
    with network, contextlib.ExitStack() as stack:
        tune(network)
        hosts = Hosts(plan, folder, network)
        stack.callback(hosts.end_all)
        for name in ("broker", "server", "devices"):
            hosts.start(name)
        memory: list[Sample] = []
        start, began_at = time.monotonic(), time.time()
        due = events(plan)
        following = next(due, None)
        while (elapsed := time.monotonic() - start) < plan.seconds or (
            rounds_in(folder) < plan.rounds and elapsed < plan.seconds + GAP_S
        ):
            hosts.check()
            if following is not None and elapsed >= following[0]:
                hosts.restart(following[1], following[2])
                following = next(due, None)
            memory += hosts.memory()
            time.sleep(SAMPLE_S)
        hosts.end("devices")
        hosts.end("server")
        ledger = read(folder)
        ledger.began_at, ledger.ended_at = began_at, time.time()
        ways = network.ways.values()
        report = Report(
            plan, judge(ledger), hosts.restarts["broker"], hosts.restarts["server"],
            json.loads((folder / "devices.json").read_text())["power_cuts"], sum(way.passed + way.lost for way in ways),
            sum(way.lost for way in ways), memory,
        )  # fmt: skip
    return report


def rounds_in(folder: Path) -> int:
    """Count the rounds committed so far."""
    page = folder / "server.jsonl"
    lines = page.read_text().splitlines() if page.exists() else []
    return len({json.loads(line)["round"] for line in lines if '"folds"' in line and line.endswith("}")})


def read(folder: Path) -> Ledger:
    """Collect the accounts of both sides."""
    with contextlib.closing(sqlite3.connect(folder / "chaos.sqlite")) as database:
        records = [json.loads(row[0]) for row in database.execute("SELECT record FROM round ORDER BY number")]
    ledger = Ledger(records, [], [])
    for line in map(json.loads, (folder / "server.jsonl").read_text().splitlines()):
        if "folds" not in line:
            ledger.folds.append(Fold(**line))
            continue
        whose = {"server": line["server"], "round": line["round"]}
        folds = tuple(Fold(**whose, **fold) for fold in line.pop("folds"))
        ledger.commits.append(Commit(**line, folds=folds))
    for line in map(json.loads, (folder / "devices.jsonl").read_text().splitlines()):
        who = (line["device"], line["round"])
        if line["event"] == "trained":
            ledger.trained[who] = line["crc32"]
        else:
            {"receipt": ledger.receipts, "committed": ledger.committed}[line["event"]].append(who)
    return ledger


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--server-restarts", type=int, help="without it one for each three minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for logs and ledgers, which stay")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmote-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        seconds = 60 * options.minutes
        restarts = max(1, round(options.minutes / 3)) if options.server_restarts is None else options.server_restarts
        plan = Plan(
            seconds, options.devices, server_restarts=restarts, calm_s=seconds / 3,
            seed=options.seed,
        )  # fmt: skip
        report = run(plan, folder)
        (folder / "memory.json").write_text(json.dumps([asdict(sample) for sample in report.memory]))
    summary = report.summary()
    print(json.dumps(summary, indent=2))
    errors = list(report.verdict.errors)
    if not report.verdict.rounds:
        errors.append("no round was committed")
    if options.minutes >= LEAKS_SHOW_MIN:
        errors += leaks(report.memory)
    if report.verdict.longest_gap_s > GAP_S:
        errors.append(f"no round was committed for {report.verdict.longest_gap_s:.0f} s; {GAP_S:g} s are too many")
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
