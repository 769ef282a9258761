# SPDX-License-Identifier: Apache-2.0
"""The chaos run: real processes on two hosts with a bad network between them, and everything that can die does.

`python tests/chaos/chaos.py --minutes 30` (root, Linux); prints what happened as JSON and fails when the ledger is not
exact. tests/chaos/test_chaos.py runs a short one.
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

from ledger import Commit, Fold, Ledger, Verdict, growth, judge

from fedmote.testing.tun import ADDRESS, Network

HERE = Path(__file__).resolve().parent
PORT = 1883
SAMPLE_S = 2.0
STARTS_WITHIN_S = 60.0
NO_BROKER = 3  # how server_process.py ends when there is none


@dataclass(frozen=True)
class Plan:
    """What happens. Times in seconds."""

    seconds: float = 1800.0
    devices: int = 20
    loss: float = 0.3
    delay: float = 0.5
    jitter: float = 0.5
    broker_every_s: float = 60.0
    server_restarts: int = 10
    calm_s: float = 120.0  # at the end the server stays up: its memory then shows a leak
    power_every_s: float = 120.0
    seed: int = 1


@dataclass
class Report:
    """What happened. memory: (time, process, bytes resident)."""

    plan: Plan
    verdict: Verdict
    broker_restarts: int
    server_restarts: int
    power_cuts: int
    packets: int
    packets_lost: int
    memory: list[tuple[float, str, int]] = field(default_factory=list)

    def total_memory(self) -> list[tuple[float, float]]:
        """Bytes of all processes together, over time: only where all of them were up."""
        by_time: dict[float, dict[str, int]] = {}
        for at, name, size in self.memory:
            by_time.setdefault(at, {})[name] = size
        return [(at, float(sum(sizes.values()))) for at, sizes in sorted(by_time.items()) if len(sizes) == 3]

    def summary(self) -> dict[str, Any]:
        """What the command prints."""
        total = self.total_memory()
        return {
            "minutes": self.plan.seconds / 60,
            **asdict(self.verdict),
            "broker_restarts": self.broker_restarts,
            "server_restarts": self.server_restarts,
            "power_cuts": self.power_cuts,
            "packets": self.packets,
            "packets_lost": self.packets_lost,
            "memory_mib": round(sum(size for _, size in total) / len(total) / 2**20, 1),
            "memory_growth": round(growth(total), 4),
            "memory_growth_of": {
                name: round(growth([(at, float(size)) for at, who, size in self.memory if who == name]), 4)
                for name in ("broker", "devices", "server")
            },
        }


class Hosts:
    """The processes, and the network between them."""

    def __init__(self, plan: Plan, folder: Path, network: Network) -> None:
        self.plan, self.folder, self.network = plan, folder, network
        self.url = f"mqtt://{ADDRESS['server']}:{PORT}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ends: list[float] = []
        self.restarts = {"broker": 0, "server": 0}
        (folder / "mosquitto.conf").write_text(
            f"listener {PORT} {ADDRESS['server']}\nallow_anonymous true\npersistence false\nuser root\n"
            f"set_tcp_nodelay true\nmax_queued_messages 0\nlog_dest file {folder / 'broker.log'}\n"
        )

    def start(self, name: str) -> None:
        """Start one of them: broker, server or devices."""
        python, each = sys.executable, str(self.plan.devices)
        path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
        side, command = {
            "broker": ("server", [path or "mosquitto", "-c", str(self.folder / "mosquitto.conf")]),
            "server": ("server", [python, str(HERE / "server_process.py"), self.url, str(self.folder), each]),
            "devices": ("device", [python, str(HERE / "devices_process.py"), self.url, str(self.folder), each,
                                   str(self.plan.power_every_s)]),
        }[name]  # fmt: skip
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 (the process has it)
        with log, self.network.inside(side):  # type: ignore[arg-type]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one of them."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(STARTS_WITHIN_S)
        if name == "server":
            self.ends.append(time.time())

    def restart(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End and start it."""
        self.end(name, how)
        self.start(name)
        self.restarts[name] += 1

    def check(self) -> None:
        """Nobody ends by itself, but for a server that finds no broker at its start: a supervisor starts it again."""
        server = self.processes["server"]
        if server.poll() == NO_BROKER:
            self.ends.append(time.time())
            self.start("server")
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended by itself: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def memory(self) -> list[tuple[float, str, int]]:
        """Resident sizes now."""
        now, out = time.monotonic(), []
        for name, process in self.processes.items():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        out.append((now, name, 1024 * int(line.split()[1])))
        return out


def events(plan: Plan) -> Iterator[tuple[float, str, signal.Signals]]:
    """What dies when, in order: (seconds from the start, who, by which signal)."""
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
    """Run it, and judge."""
    network = Network(loss=plan.loss, delay=plan.delay, jitter=plan.jitter, seed=plan.seed)
    with network, contextlib.ExitStack() as stack:
        hosts = Hosts(plan, folder, network)
        stack.callback(lambda: [hosts.end(name, signal.SIGKILL) for name in list(hosts.processes)])
        for name in ("broker", "server", "devices"):
            hosts.start(name)
        memory: list[tuple[float, str, int]] = []
        start = time.monotonic()
        due = events(plan)
        following = next(due, None)
        while (elapsed := time.monotonic() - start) < plan.seconds:
            hosts.check()
            if following is not None and elapsed >= following[0]:
                hosts.restart(following[1], following[2])
                following = next(due, None)
            memory += hosts.memory()
            time.sleep(SAMPLE_S)
        hosts.end("devices")
        hosts.end("server")
        hosts.ends.pop()  # the end of the run is nobody's fault
        ways = network.ways.values()
        report = Report(
            plan, judge(read(folder, hosts.ends)), hosts.restarts["broker"], hosts.restarts["server"],
            json.loads((folder / "devices.json").read_text())["power_cuts"], sum(way.passed + way.lost for way in ways),
            sum(way.lost for way in ways), memory,
        )  # fmt: skip
    return report


def read(folder: Path, ends: list[float]) -> Ledger:
    """Collect what both sides wrote down."""
    with contextlib.closing(sqlite3.connect(folder / "chaos.sqlite")) as database:
        records = [json.loads(row[0]) for row in database.execute("SELECT record FROM round ORDER BY number")]
    commits = [
        Commit(line["round"], line["at"], tuple(Fold(*fold) for fold in line["folds"]), line["model_crc32"])
        for line in map(json.loads, (folder / "server.jsonl").read_text().splitlines())
    ]
    ledger = Ledger(records, commits, ends=ends)
    for line in map(json.loads, (folder / "devices.jsonl").read_text().splitlines()):
        page = ledger.trained if line["event"] == "trained" else ledger.receipts
        page.append((line["device"], line["round"], line["at"]))
    return ledger


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--server-restarts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for logs and ledgers, which stay")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmote-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        seconds = 60 * options.minutes
        plan = Plan(
            seconds, options.devices, server_restarts=options.server_restarts, calm_s=min(120.0, seconds / 10),
            seed=options.seed,
        )  # fmt: skip
        report = run(plan, folder)
        (folder / "memory.json").write_text(json.dumps(report.memory))
    summary = report.summary()
    print(json.dumps(summary, indent=2))
    exact = not report.verdict.errors
    flat = abs(summary["memory_growth"]) <= 0.05
    if not flat:
        print("memory is not flat: the last third's mean is over 5 % away from the first third's", file=sys.stderr)
    return 0 if exact and flat else 1


if __name__ == "__main__":
    sys.exit(main())
