# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: fixtures and options. Each fixture imports what it needs, so that other tests start fast."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fedmote.faults.link_faults import LinkFaults
    from fedmote.testing.board import Board
    from fedmote.testing.federation import RunningFederation
    from fedmote.testing.power import Boot
    from fedmote.testing.qemu import EmulatedDevice


@pytest.fixture
def link_faults() -> Iterator[Callable[..., LinkFaults]]:
    """Make faulty links: `link_faults(loss=0.01, seed=3).serial(path)`; see LinkFaults."""
    from fedmote.faults.link_faults import LinkFaults

    with contextlib.ExitStack() as stack:

        def make(**faults: Any) -> LinkFaults:
            return stack.enter_context(LinkFaults(**faults))

        yield make


@pytest.fixture
def federation(link_faults: object) -> Iterator[Callable[..., RunningFederation]]:
    """Run a federation: `federation(devices=3, ports=[device.serial_path])`; see RunningFederation.

    It ends before the links are closed.
    """
    from fedmote.testing.federation import RunningFederation

    with contextlib.ExitStack() as stack:

        def make(devices: int = 2, **options: Any) -> RunningFederation:
            return stack.enter_context(RunningFederation(devices=devices, **options))

        yield make


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for a real board."""
    group = parser.getgroup("fedmote", "firmware on a real board instead of QEMU")
    group.addoption("--fedmote-port", metavar="PORT", help="its serial port, /dev/ttyACM0; no QEMU is started then")
    group.addoption(
        "--fedmote-power", metavar="COMMAND", help="switches its power; called as COMMAND on and COMMAND off"
    )
    group.addoption("--fedmote-log", metavar="COMMAND", help="prints its firmware's log, line by line")


@pytest.fixture
def emulated_device(request: pytest.FixtureRequest) -> Iterator[Callable[..., EmulatedDevice | Board]]:
    """Boot firmware: `emulated_device("app.elf", machine="mps2-an385")`; see EmulatedDevice.

    With --fedmote-port it is the real Board at that port.
    """
    from fedmote.testing.board import Board
    from fedmote.testing.qemu import EmulatedDevice

    port = request.config.getoption("--fedmote-port")
    with contextlib.ExitStack() as stack:
        boards: list[Board] = []

        def make(image: str | Path, machine: str = "mps2-an385", **options: Any) -> EmulatedDevice | Board:
            if port is None:
                return stack.enter_context(EmulatedDevice(image, machine, **options))
            if boards:
                pytest.fail(f"the test asks for two devices, but --fedmote-port names only one board, on {port}")
            power, log = request.config.getoption("--fedmote-power"), request.config.getoption("--fedmote-log")
            boards.append(stack.enter_context(Board(port, power=power, log=log)))
            return boards[0]

        yield make


@pytest.fixture
def power_cycle() -> Callable[..., Boot | None]:
    """Cut the power at a moment, then restore it: `power_cycle(device, at="uploading")`; see fedmote.testing.power."""
    from fedmote.testing.power import power_cycle

    return power_cycle
