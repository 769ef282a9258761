# SPDX-License-Identifier: Apache-2.0
"""How `fedmote server` ends when a signal comes, whatever the shell left it with, and who may read its files."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fedmote
from fedmote import Server, load
from fedmote.links.mqtt import _connect

FEDMOTE = str(Path(sys.executable).parent / "fedmote")


def write(folder: Path) -> Path:
    path = folder / "f.toml"
    path.write_text('[federation]\nname = "f"\ndata = "data"\n[model]\ntensors = [{ name = "w", shape = [4] }]\n')
    return path


@contextmanager
def running(folder: Path, preexec_fn: Callable[[], None] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A server that is killed at the end if it has not ended, so that a failure is one and not a test that waits."""
    with subprocess.Popen(
        [FEDMOTE, "server", str(write(folder))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=preexec_fn,
    ) as server:  # fmt: skip
        try:
            yield server
        finally:
            server.kill()


def ignore_interrupts() -> None:
    """What a shell without job control does to the jobs that a script puts into the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_background_job_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, preexec_fn=ignore_interrupts) as server:  # nothing else runs in this process
        assert server.stdout is not None
        said = server.stdout.readline()
        server.send_signal(number)
        said += server.communicate(timeout=60)[0]
    assert server.returncode == 0, said
    assert "the last committed model is in the database" in " ".join(said.split())
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.3, 0.45])
def test_a_signal_during_the_start_ends_it_without_a_traceback(
    tmp_path: Path, number: signal.Signals, after_s: float
) -> None:
    """The moment is not the same on each machine; wherever the start is then, there is no traceback."""
    with running(tmp_path) as server:
        installed = Path(f"/proc/{server.pid}/status")
        while not handles(installed, signal.SIGTERM):
            time.sleep(0.001)  # Python itself begins
        time.sleep(after_s)
        server.send_signal(number)
        said = server.communicate(timeout=60)[0]
    assert server.returncode in (0, 128 + number), said
    assert "Traceback" not in said


def handles(status: Path, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal."""
    caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_a_signal_at_the_moment_of_connecting_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal cancels the server's task. Once a server went on for ever, since its connection was made just then."""

    async def connect_interrupted() -> None:
        task = asyncio.current_task()
        assert task is not None

        async def sock_connect(sock: socket.socket, address: object) -> None:
            task.cancel()

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
        with await _connect("127.0.0.1", 1):
            await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(connect_interrupted())


def test_the_server_waits_with_timeout() -> None:
    """asyncio.wait_for() of Python 3.11 loses a cancellation that comes together with the result."""
    package = Path(fedmote.__file__).parent
    assert [str(path) for path in package.rglob("*.py") if "asyncio.wait_for(" in path.read_text()] == []


def test_only_the_servers_user_reads_its_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        server = Server(load(write(tmp_path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    server.store.close()
    assert {"f.sqlite", "f.sqlite-wal", "f.sqlite.lock"} <= modes.keys() and set(modes.values()) == {0o600}
