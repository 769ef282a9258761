# SPDX-License-Identifier: Apache-2.0
"""The POSIX example is built as its README says, and learns from a real server over mosquitto and over a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import pytest
from real_broker import Broker

from fedmote.config import load
from fedmote.links.serial import Port
from fedmote.round import Record
from fedmote.server import Federation, Server
from fedmote.testing.cable import Cable

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "firmware_examples/posix_gateway_device"
ROUNDS = 4
WAIT_S = 60.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built anew, with warnings as errors."""
    folder = tmp_path_factory.mktemp("posix_gateway_device")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in (
        ["cmake", "-G", "Ninja", "-S", EXAMPLE, "-B", folder, "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "posix_gateway_device"


@contextmanager
def running(program: Path, *arguments: str) -> Iterator[list[str]]:
    """The device, until the block ends; then what it printed."""
    lines: list[str] = []
    process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGTERM)
        lines += process.communicate(timeout=WAIT_S)[0].splitlines()
    assert process.returncode == 0, lines


def examples(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the device learns from, by its own code."""
    library = folder / "examples.so"
    subprocess.run(["cc", "-shared", "-fPIC", EXAMPLE / "examples.c", "-o", library], check=True)
    ffi = cffi.FFI()
    ffi.cdef("void examples_read(void *user, uint32_t index, float *features, uint32_t *label);")
    code = ffi.dlopen(str(library))
    x, y = np.zeros((200, 2), np.float32), np.zeros(200, np.uint32)
    for i in range(200):
        code.examples_read(ffi.NULL, i, ffi.from_buffer("float *", x[i]), ffi.from_buffer("uint32_t *", y[i : i + 1]))
    return x, y


def accuracy(model: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Of the network 2-8-2 whose parameters lie end to end."""
    k0, b0, k1, b1 = np.split(model, [16, 24, 40])
    hidden = np.maximum(x @ k0.reshape(2, 8) + b0, 0)
    return float(np.mean(np.argmax(hidden @ k1.reshape(8, 2) + b1, axis=1) == y))


def settings(folder: Path, **others: Any) -> Federation:
    """The example's own federation.toml, but for these."""
    read = load(EXAMPLE / "federation.toml")
    values = {f.name: getattr(read, f.name) for f in fields(Federation)}
    return Federation(**(values | {"database": folder / "f.sqlite"} | others))


def federate(federation: Federation, rounds: int) -> tuple[Server, list[Record]]:
    """Run the server for so many rounds."""
    records: list[Record] = []
    server = Server(federation, on_round=records.append)
    asyncio.run(asyncio.wait_for(server.run(rounds), WAIT_S))
    return server, records


def learned(server: Server, records: list[Record], folder: Path) -> None:
    """Each round has the device's update, whole, and the model knows its examples."""
    assert [(r.round, r.reported, r.partial) for r in records] == [(n, 1, 0) for n in range(1, ROUNDS + 1)]
    x, y = examples(folder)
    assert 0.3 < np.mean(y) < 0.7
    assert accuracy(server.model, x, y) > 0.8


def test_over_mqtt(program: Path, tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    try:
        federation = settings(tmp_path, broker=broker.url)
        with running(program, "unit-1", "points", "127.0.0.1", str(broker.port)) as lines:
            server, records = federate(federation, ROUNDS)
    finally:
        broker.stop()
    learned(server, records, tmp_path)
    assert "state 5 round 1" in lines
    assert "Client points.unit-1 disconnected." in (tmp_path / "log").read_text()  # and did not just vanish


def test_over_a_serial_line(program: Path, tmp_path: Path) -> None:
    with Cable() as cable:
        federation = settings(tmp_path, broker=None, ports=(Port(cable.ends[0]),))
        with running(program, "unit-1", cable.ends[1]) as lines:
            server, records = federate(federation, ROUNDS)
    learned(server, records, tmp_path)
    assert "state 5 round 1" in lines


@pytest.mark.parametrize(("arguments", "code", "said"), [
    ([], 2, "usage:"),
    (["no/name", "points", "127.0.0.1", "1883"], 1, "refused settings"),
])  # fmt: skip
def test_what_it_does_not_take(arguments: list[str], code: int, said: str, program: Path) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == code
    assert said in done.stderr
