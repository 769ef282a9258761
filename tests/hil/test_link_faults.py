# SPDX-License-Identifier: Apache-2.0
"""The fixture link_faults: its exact effect on bytes, and federations that work in spite of it."""

from __future__ import annotations

import math
import os
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serial
from waiting import WAIT_S, until

from fedmote.faults.fault import DelayLine, Noise
from fedmote.rounds.policy import Policy
from fedmote.testing.federation import LONG_S

DATA = bytes(range(256)) * 40


def test_noise_is_of_the_bytes_number_alone() -> None:
    """The same bytes are lost and corrupted however they are split. The two directions differ."""
    whole = Noise(0.02, 0.03, seed=5)(DATA, 0)
    pieces = Noise(0.02, 0.03, seed=5)
    assert b"".join(pieces(DATA[at : at + 7], 0) for at in range(0, len(DATA), 7)) == whole
    assert pieces.passed == len(DATA) and 0.03 < pieces.hits / len(DATA) < 0.07
    assert Noise(0.02, 0.03, seed=5)(DATA, 1) != whole != Noise(0.02, 0.03, seed=6)(DATA, 0)
    assert Noise()(DATA, 0) == DATA


def test_loss_shortens_and_corruption_flips_one_bit() -> None:
    """Each fault does what its name says and nothing else."""
    lost = Noise(loss=0.1)(DATA, 0)
    assert 0.85 < len(lost) / len(DATA) < 0.95
    corrupted = Noise(corrupt=0.1)(DATA, 0)
    flips = [(a ^ b).bit_count() for a, b in zip(DATA, corrupted, strict=True)]
    assert set(flips) == {0, 1} and 0.05 < sum(flips) / len(DATA) < 0.15


def test_a_cut_is_exact() -> None:
    """A cut comes after a number of bytes in both directions, and once. After the repair all bytes pass."""
    noise = Noise(cut_at=100)
    assert noise(DATA[:60], 0) == DATA[:60] and noise(DATA[:60], 1) == DATA[:40]
    assert noise.is_cut and noise(DATA, 0) == b""
    noise.is_cut = False
    assert noise(DATA, 0) == DATA


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.5}, {"corrupt": -0.1}, {"loss": 0.6, "corrupt": 0.6}, {"delay": -1.0}, {"bandwidth": 0.0}]
)
def test_impossible_faults_are_refused(link_faults: Callable[..., Any], wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected shares|must be at least"):
        link_faults(**wrong).cable()


def test_pace_on_a_clock() -> None:
    """Delay shifts, bandwidth spreads, and nothing is lost or reordered."""
    line = DelayLine(delay=2.0)
    line.push(b"a", 10.0)
    line.push(b"b", 11.0)
    assert line.pop(11.9) == b"" and line.due == 12.0 and line.held == 2
    assert line.pop(12.0) == b"a" and line.pop(20.0) == b"b" and math.isinf(line.due)
    slow = DelayLine(bandwidth=1000.0)
    slow.push(DATA[:1000], 0.0)
    passed = [slow.pop(tenth / 10 + 0.001) for tenth in range(11)]
    assert b"".join(passed) == DATA[:1000] and [len(part) for part in passed] == [0] + 10 * [100]


@contextmanager
def device_terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal in place of a real board's /dev/tty."""
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        yield master, os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


def read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def test_a_terminal_of_a_device(link_faults: Callable[..., Any]) -> None:
    """pyserial opens the server's end by its path; bytes pass both ways, each with its fault."""
    faults = link_faults(corrupt=0.1, seed=3)
    with device_terminal() as (board, path), serial.Serial(faults.serial(path), timeout=WAIT_S) as server:
        os.write(board, DATA[:1000])
        assert server.read(1000) == Noise(corrupt=0.1, seed=3)(DATA[:1000], 1)
        server.write(DATA[:1000])
        assert read_exactly(board, 1000) == Noise(corrupt=0.1, seed=3)(DATA[:1000], 0)


def test_a_unix_socket_of_a_device(link_faults: Callable[..., Any], tmp_path: Path) -> None:
    """A serial line on a Unix socket, as QEMU's, is cut after 300 bytes and repaired."""
    faults = link_faults(cut_at=300)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "uart0"))
        listener.listen()
        with serial.Serial(faults.serial(str(tmp_path / "uart0")), timeout=WAIT_S) as server:
            board, _ = listener.accept()
            with board:
                board.sendall(DATA[:500])
                assert server.read(300) == DATA[:300]
                faults.restore()
                server.write(b"now")
                assert read_exactly(board.fileno(), 3) == b"now"


def test_a_federation_on_noisy_cables(federation: Callable[..., Any], link_faults: Callable[..., Any]) -> None:
    """One byte in 500 lost, one in 500 corrupted: each update counts once, and the model is the clean line's."""
    policy = Policy(
        devices=2, goal=1.0, chunk_elements=128, one_at_a_time=True, soft_deadline_s=LONG_S, hard_deadline_s=LONG_S
    )
    clean = federation(2, serial=2, policy=policy, seed=4)
    clean.wait_rounds(1)
    faults = link_faults(loss=0.002, corrupt=0.002, seed=9)
    noisy = federation(2, serial=2, policy=policy, seed=4, cable=faults.cable)
    noisy.wait_rounds(1)
    assert sorted(noisy.folds(1).devices) == ["desktop-0", "desktop-1"]
    assert all(noise.hits > 10 for noise in faults.noises)
    assert noisy.models[0].tobytes() == clean.models[0].tobytes()


def test_a_federation_through_a_proxy_that_cuts(
    federation: Callable[..., Any], link_faults: Callable[..., Any]
) -> None:
    """One connection breaks in the middle of a transfer, and later all of them break. The rounds go on."""
    faults = link_faults(cut_at=6000, delay=0.001)
    running = federation(2, through=faults.mqtt, rounds=100_000)
    until(lambda: len(faults.noises) == 2 and all(noise.is_cut for noise in faults.noises))  # each has a cut to come
    faults.restore()
    running.wait_rounds(2)
    before = [proxy.accepted for proxy in faults.proxies]
    assert sum(before) > 2
    faults.cut()
    faults.restore()
    until(lambda: all(proxy.accepted > was for proxy, was in zip(faults.proxies, before, strict=True)))
    last = len(running.records) + 2
    records = running.wait_rounds(last)
    assert {tuple(sorted(running.folds(r + 1).devices)) for r in range(last)} == {("desktop-0", "desktop-1")}
    assert {r.reported for r in records} == {2}


def test_a_broker_that_stalls(federation: Callable[..., Any], link_faults: Callable[..., Any]) -> None:
    """Connections stay open while nothing passes. No round ends meanwhile; afterwards they go on."""
    faults = link_faults()
    running = federation(1, through=faults.mqtt, rounds=100_000)
    running.wait_rounds(1)
    accepted = faults.proxies[0].accepted
    faults.stall()
    stalled = len(running.records)
    with pytest.raises(TimeoutError, match="devices: "):
        running.wait_rounds(stalled + 2, timeout_s=0.5)
    faults.restore()
    running.wait_rounds(stalled + 2)
    assert faults.proxies[0].accepted == accepted


def test_bandwidth_on_tcp(link_faults: Callable[..., Any]) -> None:
    """A proxy with little memory makes the sender wait, and loses nothing."""
    faults = link_faults(bandwidth=2e6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = faults.mqtt(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":")[-1]))) as device:
            broker, _ = server.accept()
            with broker:
                sender = threading.Thread(target=device.sendall, args=(DATA * 30,))
                sender.start()
                data = b""
                while len(data) < 30 * len(DATA):
                    data += broker.recv(65536)
                sender.join()
    assert data == DATA * 30


def test_what_a_link_cannot_do_is_said(link_faults: Callable[..., Any]) -> None:
    """The error names the link that supports the fault."""
    with pytest.raises(ValueError, match=r"TCP hides loss.*network\(\)"):
        link_faults(loss=0.1).mqtt("mqtt://127.0.0.1:1883")
    with pytest.raises(ValueError, match=r"for those use network\(\)"):
        link_faults(delay=1.0, jitter=0.1).cable()
    with pytest.raises(ValueError, match="cut_at counts the bytes of a stream"):
        link_faults(cut_at=10).network()
