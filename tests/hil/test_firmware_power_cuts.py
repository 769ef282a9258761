# SPDX-License-Identifier: Apache-2.0
"""Firmware in QEMU loses its power at random moments of a round. It continues where it was, and counts once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from images import build, fetch_sources

from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.testing.federation import LONG_S, RunningFederation
from fedmote.testing.power import Boot, Moment, moments, power_cycle
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


def other_trainer(widths: tuple[int, ...]) -> CTrainer:
    """Data of the desktop device that keeps rounds open. What it learns does not matter."""
    rng = np.random.default_rng(SEED)
    return CTrainer(widths, rng.random((40, widths[0]), np.float32), rng.integers(0, 10, 40))


def policy_of(chunk_elements: int) -> Policy:
    """A round waits for both devices."""
    return Policy(devices=2, goal=1.0, chunk_elements=chunk_elements, soft_deadline_s=LONG_S, hard_deadline_s=LONG_S)


def cut_in_each_round(device: EmulatedDevice, running: RunningFederation, name: str, drawn: list[Moment]) -> None:
    """One power cut a round, while another device keeps the round open. Both updates count, each once."""
    chunks = -(-running.layout.elements // running.policy.chunk_elements)
    for number, moment in enumerate(drawn, 1):
        boot = power_cycle(device, moment, round=number)
        assert boot is not None
        cut = max(i for i, text in enumerate(device.lines) if text.startswith("boot "))
        running.wait_folded(name)
        check(device, boot, number, chunks, cut)
        running.release(0)
        running.wait_rounds(number)
        assert sorted(running.folds(number).devices) == sorted([name, "desktop-0"]), moment
    assert [record.partial for record in running.records] == [0] * len(drawn)
    assert not [text for text in device.lines if text.startswith("fault")]


@pytest.mark.parametrize("name", IMAGES)
def test_cuts_of_devices_on_a_serial_line(
    name: str,
    request: pytest.FixtureRequest,
    emulated_device: Callable[..., Any],
    link_faults: Callable[..., Any],
    federation: Callable[..., Any],
) -> None:
    machine, widths, chunk_elements = IMAGES[name]
    count = request.config.getoption("--moments")
    layout = dense(widths)
    device = emulated_device(build(name, name, 0, 10), machine)
    line = link_faults(bandwidth=BANDWIDTH).serial(device.serial_path)
    running = federation(
        1, serial=1, ports=[line], layout=layout, trainers=[other_trainer(widths)], held=[0], rounds=count,
        training=Training(epochs=2, batch_size=16), policy=policy_of(chunk_elements),
    )  # fmt: skip
    transfer_s, chunks = 4 * layout.elements / BANDWIDTH, -(-layout.elements // chunk_elements)
    cut_in_each_round(device, running, name, moments(SEED, count, transfer_s, chunks))


def test_cuts_of_a_device_on_a_broker(
    request: pytest.FixtureRequest,
    emulated_device: Callable[..., Any],
    link_faults: Callable[..., Any],
    federation: Callable[..., Any],
) -> None:
    """The same over lwIP, through a slow proxy."""
    name, widths, chunk_elements = "cortex_m3_mqtt", (64, 32, 10), 128
    count = request.config.getoption("--moments")
    running = federation(
        1, serial=1, broker=True, trainers=[other_trainer(widths)], held=[0], rounds=count, name="digits",
        training=Training(epochs=2, batch_size=16), policy=policy_of(chunk_elements),
    )  # fmt: skip
    proxy = link_faults(bandwidth=BANDWIDTH).mqtt(running.broker)
    fetch_sources()
    image = build(name, name, 0, 10, FEDMOTE_BROKER=f"10.0.2.2:{urlsplit(proxy).port}")
    device = emulated_device(image, "mps2-an385", arguments=["-nic", "user,model=lan9118"])
    cut_in_each_round(device, running, name, moments(SEED, count, 4 * running.layout.elements / BANDWIDTH))


def test_moments_are_spread_over_the_round() -> None:
    """The same seed draws the same moments, and all kinds occur."""
    drawn = moments(SEED, 50, 0.3, 19)
    assert drawn == moments(SEED, 50, 0.3, 19) != moments(SEED + 1, 50, 0.3, 19)
    assert {moment.at for moment in drawn if isinstance(moment.at, str)} >= {"working", "uploading", "holding"}
    assert all(1 <= moment.at < 19 for moment in drawn if isinstance(moment.at, int))
    assert Moment("holding") in drawn
