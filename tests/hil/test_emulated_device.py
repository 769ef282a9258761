# SPDX-License-Identifier: Apache-2.0
"""emulated_device: a board in QEMU with its power, and the same tests on a real one by one option."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import ROOT, build
from waiting import until

from fedmote.faults.cable import Cable
from fedmote.testing.board import Board
from fedmote.testing.log import Log
from fedmote.testing.power import Boot, Moment
from fedmote_device import CTrainer, Device

NAME = "cortex_m3_serial"
MANUAL = ROOT / "docs" / "testing_firmware.md"


@pytest.fixture(scope="module")
def image() -> Path:
    return build(NAME, NAME, 0, 10)


def test_power_goes_and_comes(emulated_device: Callable[..., Any], image: Path) -> None:
    """After a power cut the port's path is the same and the log continues. Power that is on cannot be switched on."""
    device = emulated_device(image)
    path = device.serial_path
    device.wait_for("^boot restored=0 round=0$")
    assert device.power == "on"
    with pytest.raises(RuntimeError, match="has power already"):
        device.power_on()
    device.power_cut()
    assert device.power == "off" and device.lines == ["boot restored=0 round=0"]
    with pytest.raises(RuntimeError, match="no power to cut"):
        device.power_cut()
    with pytest.raises(EOFError, match=r"'state': the device has no power; it said\n  boot"):
        device.wait_for("state")
    device.power_on()
    device.wait_for("^boot", after=1)
    assert device.serial_path == path and len(device.lines) == 2


def test_a_reset_halts_with_its_memory(
    emulated_device: Callable[..., Any], federation: Callable[..., Any], image: Path
) -> None:
    """A board that resets itself halts, so that its storage is kept until the test looks at it."""
    device = emulated_device(image)
    federation(1, serial=1, ports=[device.serial_path], held=[0])
    device.wait_for("^state holding")
    device._qmp.execute("system_reset")
    until(lambda: device.power == "halted")
    device.power_cut()
    device.power_on()
    device.wait_for("^boot restored=20 round=1$")


def test_storage_is_what_it_was_to_the_byte(
    emulated_device: Callable[..., Any], federation: Callable[..., Any], image: Path
) -> None:
    """A second cut finds what the first one saved, except for the word in which the firmware counts its starts."""
    device = emulated_device(image)
    federation(1, serial=1, ports=[device.serial_path], held=[0])
    device.wait_for("^state holding")
    device.power_cut()
    saved = device._flash.read_bytes()
    assert len(saved) == device._storage[1] - device._storage[0] and len(set(saved)) > 100
    device.power_on()
    device.wait_for("^boot restored=20")
    device.power_cut()
    changed = [i for i, (a, b) in enumerate(zip(device._flash.read_bytes(), saved, strict=True)) if a != b]
    last_block = len(saved) - 4096
    assert changed == list(range(last_block + 4, last_block + 8))


def test_moments(emulated_device: Callable[..., Any], federation: Callable[..., Any], power_cycle: Any) -> None:
    """Cut the power at a state, a chunk or a time, from now on or within a round."""
    device = emulated_device(build(NAME, NAME, 0, 10))
    running = federation(1, serial=1, ports=[device.serial_path], held=[0], rounds=1)
    boot = power_cycle(device, "working", round=1)
    assert boot.round == 1 and boot.restored >= 19
    boot = power_cycle(device, at=Moment("holding", 0.01), round=1)
    assert boot == Boot(restored=20, round=1)
    assert power_cycle(device, at=0.01) == boot
    running.release()
    running.wait_rounds(1)
    assert sorted(running.folds(1).devices) == [NAME, "desktop-0"]


def test_what_cannot_start_is_said(tmp_path: Path, emulated_device: Callable[..., Any], image: Path) -> None:
    """The error has QEMU's message, or what is known without it."""
    with pytest.raises(ValueError, match="machine 'pdp-11': known are mps2-an385"):
        emulated_device(image, "pdp-11")
    with pytest.raises(RuntimeError, match=r"QEMU ended: .*no-such-device"):
        emulated_device(image, arguments=["-device", "no-such-device"])
    (tmp_path / "image.elf").write_bytes(b"not an image")
    with pytest.raises(Exception, match="Magic number does not match"):
        emulated_device(tmp_path / "image.elf")


def test_log_lines_come_in_pieces() -> None:
    """Only complete lines count. A search starts at a given line."""
    log = Log()
    log.feed(b"state idle round=1\r\nsta")
    log.feed(b"te working round=2\n")
    assert log.lines == ["state idle round=1", "state working round=2"]
    assert log.wait_for(r"state (\w+)")[1] == "idle" and log.wait_for(r"state (\w+)", after=1)[1] == "working"
    assert log.last(r"round=(\d)") == "2" and log.last("none (.)") == ""
    with pytest.raises(TimeoutError, match=r"'boot' after 0 s; it said\n  state idle"):
        log.wait_for("boot", timeout_s=0)


# ---- a real board, which is here a desktop device on a cable


@contextmanager
def board_on_a_cable() -> Iterator[str]:
    """The path of a serial port with a device behind it."""
    rng = np.random.default_rng(1)
    trainer = CTrainer((64, 32, 10), rng.random((40, 64), np.float32), rng.integers(0, 10, 40))
    with Cable() as cable:
        device = Device(NAME, f"serial://{cable.ends[1]}", federation="digits", trainer=trainer)
        done = threading.Event()
        thread = threading.Thread(target=device.run, kwargs={"until": lambda _: done.is_set(), "timeout_s": 300})
        thread.start()
        try:
            yield cable.ends[0]
        finally:
            done.set()
            thread.join()
            device.close()


def example(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the manual's example, as it stands there, in a pytest of its own."""
    code = re.search(r"```python\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "test_example.py").write_text(code[1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py", *options]
    image = str(build(NAME, NAME, 0, 10))
    return subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "FIRMWARE": image}, capture_output=True, text=True, timeout=300
    )


def test_the_manuals_example_in_qemu(tmp_path: Path) -> None:
    """The example passes on the image."""
    done = example(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_manuals_example_on_a_board(tmp_path: Path) -> None:
    """One option selects a real board. A test that needs the power switch says which option is missing."""
    with board_on_a_cable() as port:
        done = example(tmp_path, "--fedmote-port", port, "-k", "learns or noise")
        assert done.returncode == 0, done.stdout
        assert "2 passed" in done.stdout
        done = example(tmp_path, "--fedmote-port", port, "-k", "any_time")
        assert done.returncode == 1 and "name a command with --fedmote-power" in done.stdout


def test_a_boards_power_and_log(tmp_path: Path) -> None:
    """The power command is called with on and off. The log command's output is the log."""
    calls = tmp_path / "calls"
    switch = tmp_path / "switch"
    switch.write_text(f'#!/bin/sh\necho "$2" >> {calls}\ntest "$1" = good || {{ echo no such relay; exit 3; }}\n')
    switch.chmod(0o755)
    with Board("/dev/ttyACM0", power=f"{switch} good", log="printf 'boot restored=3 round=1\\n'") as board:
        assert board.serial_path == "/dev/ttyACM0" and board.power == "on"
        assert board.wait_for(r"restored=(\d)")[1] == "3"
        board.power_cut()
        assert board.power == "off" and calls.read_text().split() == ["off", "on", "off"]
        with pytest.raises(EOFError, match="the --fedmote-log command ended"):
            board.wait_for("state")
    with (
        pytest.raises(RuntimeError, match="switch bad off failed: no such relay"),
        Board("/dev/x", power=f"{switch} bad"),
    ):
        pass
