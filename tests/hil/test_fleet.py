# SPDX-License-Identifier: Apache-2.0
"""Emulated boards of several kinds and twenty desktop devices in one federation; the smallest ones in their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from images import build, fetch_sources

from fedmote.datasets import baselines
from fedmote.datasets import digits as data
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.testing.federation import LONG_S

DESKTOP, ROUNDS, GOAL = 20, 10, 0.90
BOARDS = (
    ("cortex_m3_serial", "mps2-an385", "cortex-m3"),
    ("cortex_m3_serial", "mps2-an386", "cortex-m4"),
    ("cortex_m3_serial", "mps2-an500", "cortex-m7"),
    ("riscv32_serial", "virt", "riscv-0"),
    ("riscv32_serial", "virt", "riscv-1"),
)
ETHERNET = "cortex-m3-mqtt"  # the one board on the broker
SMALL = (16, 12, 10)
PATIENCE_S = 600.0  # half a minute is enough when nobody else keeps the machine busy


def boot(emulated_device: Callable[..., Any], boards: tuple[tuple[str, str, str], ...], shares: range) -> list[str]:
    """Switch the boards on, each with its own of the shares of the digits; return their serial ports."""
    ports = []
    for (name, machine, device_id), share in zip(boards, shares, strict=False):
        ports.append(emulated_device(build(name, device_id, share, shares.stop), machine).serial_path)
    return ports


def test_boards_and_desktop_devices_learn_digits(
    emulated_device: Callable[..., Any], federation: Callable[..., Any]
) -> None:
    """All updates are folded in all rounds, the model is good, and without the boards it would differ."""
    everybody = DESKTOP + len(BOARDS) + 1
    ports = boot(emulated_device, BOARDS, range(DESKTOP, everybody))
    policy = Policy(devices=everybody, goal=1.0, chunk_elements=128, soft_deadline_s=LONG_S, hard_deadline_s=LONG_S)
    running = federation(
        DESKTOP, serial=2, ports=ports, others=everybody - DESKTOP, rounds=ROUNDS, name="digits", policy=policy
    )
    fetch_sources()
    broker = f"10.0.2.2:{urlsplit(running.broker).port}"  # QEMU's host, from inside
    image = build("cortex_m3_mqtt", ETHERNET, everybody - 1, everybody, FEDMOTE_BROKER=broker)
    emulated_device(image, "mps2-an385", arguments=["-nic", "user,model=lan9118"])
    running.wait_rounds(ROUNDS, timeout_s=PATIENCE_S)
    boards = [ETHERNET, *(device_id for _, _, device_id in BOARDS)]
    wanted = sorted(boards + [f"desktop-{i}" for i in range(DESKTOP)])
    assert [sorted(running.folds(r + 1).devices) for r in range(ROUNDS)] == ROUNDS * [wanted]
    assert running.accuracy() >= GOAL
    for number in range(1, ROUNDS + 1):
        model = running.models[number - 1]
        assert np.array_equal(running.model_without(number, []), model)
        for left_out in ([device_id] for device_id in boards):
            assert not np.array_equal(running.model_without(number, left_out), model)
        assert np.abs(running.model_without(number, boards) - model).max() > 1e-3


def test_boards_with_16_kib_learn_a_small_model(
    emulated_device: Callable[..., Any], federation: Callable[..., Any]
) -> None:
    """A Cortex-M0 cannot hold the model above: two of them learn one of 334 parameters, from 16 features."""
    boards = (("cortex_m0_sensor", "microbit", "cortex-m0-0"), ("cortex_m0_sensor", "microbit", "cortex-m0-1"))
    ports = boot(emulated_device, boards, range(len(boards)))
    running = federation(
        0, ports=ports, layout=dense(SMALL), rounds=ROUNDS, name="small-digits",
        training=Training(epochs=5, batch_size=16, learning_rate=0.2),
        policy=Policy(devices=2, goal=1.0, soft_deadline_s=LONG_S, hard_deadline_s=LONG_S),
    )  # fmt: skip
    running.wait_rounds(ROUNDS, timeout_s=PATIENCE_S)
    names = [device_id for _, _, device_id in boards]
    assert [sorted(running.folds(r + 1).devices) for r in range(ROUNDS)] == ROUNDS * [names]
    _, _, x, y = data.split(np.random.default_rng(1))
    features = x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, SMALL[0])
    first, last = (baselines.accuracy(running.models[r], SMALL, features, y) for r in (0, -1))
    assert last > max(first, 0.6)
