# SPDX-License-Identifier: Apache-2.0
"""Flower's deployment engine as its manual starts it: one SuperLink, SuperNodes, an app submitted by `flwr run`."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import BENCH, FLWR_VENV, flwr_environment

CONFIG = """\
[superlink]
default = "bench"

[superlink.bench]
address = "127.0.0.1:{port}"
insecure = true
"""
STAMP = re.compile(r"bench round (\d+) at (\d+\.\d+)")


@dataclass
class Deployment:
    """A running deployment."""

    started: float  # time.time() before the first process
    superlink: int  # process ids
    supernodes: list[int]
    environment: dict[str, str]

    def run(self, rounds: int, timeout_s: float = 300.0) -> dict[int, float]:
        """Run the app of bench/flwr/app; return the time of day before the first round (0) and after each."""
        command: list[str | Path] = [FLWR_VENV / "bin" / "flwr", "run", BENCH / "flwr" / "app", "bench", "--stream"]
        command += ["--run-config", f"rounds={rounds} nodes={len(self.supernodes)}"]
        stamps: dict[int, float] = {}
        lines: list[str] = []
        deadline = time.monotonic() + timeout_s
        with subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                for line in process.stdout or ():
                    lines.append(line)
                    if found := STAMP.search(line):
                        stamps[int(found[1])] = float(found[2])
                    if rounds in stamps or time.monotonic() > deadline:
                        break
            finally:
                process.kill()
        if rounds not in stamps:
            raise RuntimeError("Flower's run did not end:\n" + "".join(lines[-20:]))
        return stamps


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
    """Wait until a process listens on the port."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("Flower's SuperLink did not start")


@contextlib.contextmanager
def deployment(nodes: int) -> Iterator[Deployment]:
    """Start a deployment; the end of the context stops it."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmote-bench-flwr-")))
        log = stack.enter_context((home / "log").open("wb"))
        port = free_port()
        (home / "config.toml").write_text(CONFIG.format(port=port))
        environment = flwr_environment(home)
        started = time.time()

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = [str(FLWR_VENV / "bin" / arguments[0]), "--insecure", *arguments[1:]]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(stop, process)
            return process

        superlink = start("flower-superlink", "--port", str(port), "--disable-runtime-dependency-installation")
        address = f"127.0.0.1:{port}"
        supernodes = [
            start("flower-supernode", "--superlink", address, "--port", str(free_port()), "--node-config",
                  f"partition-id={i}")
            for i in range(nodes)
        ]  # fmt: skip
        wait_for(port, superlink)
        yield Deployment(started, superlink.pid, [node.pid for node in supernodes], environment)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop one of our processes: terminate, then kill."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
