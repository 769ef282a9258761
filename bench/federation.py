# SPDX-License-Identifier: Apache-2.0
"""The real server in this process and devices in others, for wire_bytes and memory."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from common import FEDERATION, WIDTHS

from fedmote.links.serial import Port
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server


@contextlib.contextmanager
def process(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that ends when its standard input does."""
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield running
    finally:
        try:
            running.communicate(b"stop\n", timeout=15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


async def serve(
    broker: str | None, rounds: int, *, devices: int = 1, chunk_elements: int = 1024, port: str | None = None,
    on_round: Callable[[Record], None],
) -> None:  # fmt: skip
    """Run rounds that wait for every device; `on_round` is called at each commit."""
    with tempfile.TemporaryDirectory(prefix="fedmote-bench-") as folder:
        policy = Policy(devices=devices, goal=1.0, min_reports=devices, chunk_elements=chunk_elements)
        database = Path(folder) / "bench.sqlite"
        ports = () if port is None else (Port(port),)
        server = Server(
            Federation(FEDERATION, dense(WIDTHS), broker, policy=policy, database=database, ports=ports),
            on_round=on_round,
        )
        await asyncio.wait_for(server.run(rounds), 120)
