# SPDX-License-Identifier: Apache-2.0
"""Firmware in QEMU loses its power at drawn moments of a round; it goes on where it was, and counts once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from images import build

from fedmote.layout import dense
from fedmote.round import Policy, Training
from fedmote.testing.power import Boot, Moment, moments
from fedmote.testing.qemu import EmulatedDevice
from fedmote_device import CTrainer

BANDWIDTH = 30_000.0  # bytes per second of the line: a transfer lasts long enough to be cut in its middle
IMAGES = {
    "cortex_m3_serial": ("mps2-an385", (64, 32, 10), 128),
    "riscv32_serial": ("virt", (64, 32, 10), 128),
    "cortex_m0_sensor": ("microbit", (16, 12, 10), 64),
}
SEED = 2026


def check(device: EmulatedDevice, boot: Boot, number: int, chunks: int, cut: int) -> None:
    """What was durable is neither fetched nor trained again. cut: number of the first log line after the cut."""
    start = max(i for i, line in enumerate(device.lines[:cut]) if line.startswith(f"state downloading round={number}"))
    before, after = device.lines[start:cut], device.lines[cut:]
    received = max([0, *(int(line.split()[1]) for line in before if line.startswith("chunk "))])
    fetched = [int(line.split()[1]) for line in after if line.startswith("chunk ")]
    if boot.round == number:  # the last chunk may have come and not been durable yet
        assert boot.restored >= received - 1, (boot, before, after)
        assert all(chunk >= boot.restored for chunk in fetched), (boot, before, after)
    if received > 1:
        assert boot.round == number, (boot, before, after)
    if f"state checking round={number}" in before:
        assert boot.round == number and boot.restored >= chunks, (boot, before, after)
    if f"state uploading round={number}" in before:  # the update was durable before it went out
        assert boot.restored == chunks + 1 and f"state working round={number}" not in after, (boot, before, after)


@pytest.mark.parametrize("name", IMAGES)
def test_cuts_in_the_middle_of_rounds(
    name: str,
    request: pytest.FixtureRequest,
    emulated_device: Callable[..., Any],
    link_faults: Callable[..., Any],
    federation: Callable[..., Any],
    power_cycle: Callable[..., Any],
) -> None:
    """One cut a round, while another device keeps the round open; then both updates are in it, each once."""
    machine, widths, chunk_elements = IMAGES[name]
    count = request.config.getoption("--moments")
    layout = dense(widths)
    chunks = -(-layout.elements // chunk_elements)
    device = emulated_device(build(name, name, 0, 10), machine)
    line = link_faults(bandwidth=BANDWIDTH).serial(device.serial_path)
    rng = np.random.default_rng(SEED)
    other = CTrainer(widths, rng.random((40, widths[0]), np.float32), rng.integers(0, 10, 40))
    running = federation(
        1, serial=1, ports=[line], layout=layout, trainers=[other], held=[0], rounds=count, name="digits",
        training=Training(epochs=2, batch_size=16), policy=Policy(devices=2, goal=1.0, chunk_elements=chunk_elements),
    )  # fmt: skip
    for number, moment in enumerate(moments(SEED, count, chunks, layout.elements / BANDWIDTH), 1):
        boot = power_cycle(device, moment, round=number)
        cut = max(i for i, text in enumerate(device.lines) if text.startswith("boot "))
        running.wait_folded(name)
        check(device, boot, number, chunks, cut)
        running.release(0)
        running.wait_rounds(number)
        assert sorted(running.folds(number).devices) == sorted([name, "desktop-0"]), moment
    assert [record.partial for record in running.records] == [0] * count
    assert not [text for text in device.lines if text.startswith("fault")]


def test_moments_are_spread_over_the_round() -> None:
    """A seed draws the same ones again, and of every kind."""
    drawn = moments(SEED, 50, 19, 0.3)
    assert drawn == moments(SEED, 50, 19, 0.3) != moments(SEED + 1, 50, 19, 0.3)
    assert {moment.at for moment in drawn if isinstance(moment.at, str)} >= {"working", "uploading", "holding"}
    assert all(1 <= moment.at < 19 for moment in drawn if isinstance(moment.at, int))
    assert Moment("holding") in drawn
