# SPDX-License-Identifier: Apache-2.0
"""Whole federations over serial lines: pseudo-terminals, pyserial, the real server and the real C client."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from fleet_thread import run_rounds
from numpy.typing import NDArray
from real_broker import LONG_S, WAIT_S

from fedmote.config.settings import load
from fedmote.errors import ConfigError
from fedmote.faults.cable import Cable
from fedmote.links.serial import Port, SerialSettings
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote_device import CTrainer, Device

DEVICES = 2
Fault = Callable[[bytes, int], bytes]


class Noise:
    """Flips, drops or doubles bytes at random, each with a third of `share`."""

    def __init__(self, seed: int, share: float) -> None:
        self.random = random.Random(seed)
        self.share = share
        self.hits = 0

    def __call__(self, data: bytes, end: int) -> bytes:
        out = bytearray()
        for byte in data:
            kind = self.random.randrange(3) if self.random.random() < self.share else None
            self.hits += kind is not None
            if kind == 0:
                out.append(byte ^ 1 << self.random.randrange(8))
            elif kind == 1:
                out += bytes([byte, byte])
            elif kind is None:
                out.append(byte)
        return bytes(out)


def federate(
    rounds: int,
    faults: list[Fault | None],
    befall: Callable[[list[Device]], None] = lambda devices: None,
    widths: tuple[int, ...] = (16, 8, 4),
) -> tuple[NDArray[np.float32], list[Record], list[dict[str, int]]]:
    """Train on one cable for each fault; return the model, the rounds and the devices' counters."""
    rng = np.random.default_rng(3)
    records: list[Record] = []
    with ExitStack() as stack:
        cables = [stack.enter_context(Cable(fault)) for fault in faults]
        devices = [
            Device(
                f"press-{i}",
                f"serial://{cable.ends[1]}",
                federation="test",
                trainer=CTrainer(widths, rng.standard_normal((40, widths[0]), np.float32), rng.integers(0, 4, 40)),
                seed=i + 1,
                backoff_ms=(20, 100),
                retry_ms=(200, 1000),
            )
            for i, cable in enumerate(cables)
        ]
        policy = Policy(
            devices=len(cables), min_reports=len(cables), one_at_a_time=True, chunk_elements=16,
            soft_deadline_s=LONG_S, hard_deadline_s=LONG_S,
        )  # fmt: skip
        server = Server(
            Federation(
                "test",
                dense(widths),
                None,
                Training(epochs=2, batch_size=8),
                policy,
                ports=tuple(Port(cable.ends[0]) for cable in cables),
            ),
            on_round=records.append,
        )

        run_rounds(server, devices, rounds, WAIT_S, lambda: befall(devices))
        counters = [
            {**d.counters, "held": int(d.state == "holding")} | {f"link_{k}": v for k, v in d.link_counters.items()}
            for d in devices
        ]
        return server.model, records, counters


def test_a_noisy_line_gives_the_clean_lines_model() -> None:
    """With one byte in a hundred flipped, dropped or doubled, both ways, the model is exactly the clean line's."""
    clean, records, counters = federate(1, [None, None])
    assert [(r.reported, r.partial, r.dropped) for r in records] == [(2, 0, 0)]
    assert [c["held"] for c in counters] == [0, 0]  # the server did not close the ports on its last Commit
    noises = [Noise(seed, 0.01) for seed in range(DEVICES)]
    noisy, records, counters = federate(1, list(noises))
    assert [r.reported for r in records] == [2]
    assert noisy.tobytes() == clean.tobytes()
    assert all(noise.hits > 20 for noise in noises)
    assert all(c["link_crc_errors"] > 0 and c["malformed"] == 0 for c in counters)


def test_a_cable_that_is_pulled_and_plugged_in_again() -> None:
    """The link breaks in the download and in the upload. Transfers resume, and each update counts once."""
    widths = (64, 32, 10)  # of 151 chunks each way, so that a look every few milliseconds finds it in the middle
    clean, _, _ = federate(2, [None], widths=widths)
    cut_in: list[tuple[int, str]] = []

    def befall(devices: list[Device]) -> None:
        device = devices[0]
        now = (device.round, device.state)
        if device.state in ("downloading", "uploading") and device.chunk >= 3 and now not in cut_in:
            cut_in.append(now)
            device.cut_link()
        elif not device.online:
            device.restore_link()

    model, records, counters = federate(2, [None], befall, widths)
    assert {state for _, state in cut_in} == {"downloading", "uploading"}
    assert [r.reported for r in records] == [1, 1]
    assert counters[0]["chunks_resumed_in"] >= 3 and counters[0]["link_connections"] > 2
    assert model.tobytes() == clean.tobytes()


def write(tmp_path: Path, serial: str) -> Path:
    """Write a federation.toml with this [serial] section."""
    path = tmp_path / "federation.toml"
    head = '[federation]\nname = "f"\n[model]\ntensors = [{ name = "w", shape = [4] }]\n[serial]\n'
    path.write_text(head + serial + "\n")
    return path


@pytest.mark.parametrize(
    ("serial", "says"),
    [
        ("", "serial.ports: is missing"),
        ("ports = [3]", "serial.ports[0]: must be a port's name or URL"),
        ('ports = ["/dev/a", "/dev/a"]', "serial.ports[1]: url '/dev/a' must be a string and unlike the others"),
        ('ports = ["/dev/a"]\nbaud = "fast"', "serial.ports[0]: baud 'fast' must be an integer"),
        ('ports = [{ url = "/dev/a", device = "a/b" }]', "serial.ports[0]: device 'a/b' must be"),
        ('ports = ["/dev/a"]\nport = 1', "serial.port: unknown; did you mean ports?"),
    ],
)
def test_a_wrong_section_is_told(tmp_path: Path, serial: str, says: str) -> None:
    """A wrong section is refused: the error names the key and the remedy."""
    path = write(tmp_path, serial or "baud = 9600")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert says in str(caught.value)


def test_ports_are_read(tmp_path: Path) -> None:
    """Short and long form, and the section's baud rate."""
    path = write(
        tmp_path,
        'baud = 9600\nports = ["/dev/a", { url = "socket://h:1", baud = 115200, device = "press-1" }]',
    )
    settings = load(path)
    assert settings.links == (SerialSettings((Port("/dev/a", 9600), Port("socket://h:1", 115200, "press-1"))),)
    assert settings.broker is None
