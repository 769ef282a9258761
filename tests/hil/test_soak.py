# SPDX-License-Identifier: Apache-2.0
"""Virtual hours of the application of firmware_examples/cortex_m3_serial, whose line is down most of the time.

The firmware's own app/ sources, its UART ring and the device library run on the host (host_board.c), the server's
session, round and serial link beside it, all on one virtual clock. FEDMOTE_SOAK_HOURS sets how long.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedmote.datasets.digits import split
from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote_device.links import SerialLink

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "firmware_examples"
HOURS = float(os.environ.get("FEDMOTE_SOAK_HOURS", "8"))
DOWN = 0.7
MEAN_UP_S = 60.0
BYTES_A_MS = 11.52  # 115,200 baud
STEP_MS = 5  # while bytes are under way
TRAINING_MS = 4000  # a mini-batch, on a device that has something else to do
WORKING = 5  # FM_STATE_WORKING
COUNTERS = (
    "updates", "partial", "connections", "overruns", "errors", "misused", "state", "resumed_in", "resumed_out",
)  # fmt: skip
LOG = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The application, with its board on the host."""
    out = tmp_path_factory.mktemp("host") / "libboard.so"
    sources = [
        *ROOT.glob("csdk/src/*.c"),
        *ROOT.glob("csdk/train/*.c"),
        *(EXAMPLES / "app" / f for f in ("app.c", "line.c", "serial/app_link.c")),
        EXAMPLES / "digits/digits.c",
        EXAMPLES / "bare_metal/serial/uart.c",
    ]
    sources += [ROOT / "bindings/src/flash.c", Path(__file__).with_name("host_board.c")]
    folders = [ROOT / folder for folder in ("csdk/include", "csdk/src", "csdk/train", "bindings/src")]
    folders += [EXAMPLES / folder for folder in ("app", "app/serial", "digits", "bare_metal/serial")]
    subprocess.run(
        ["gcc", "-std=c99", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-DMODEL_INPUTS=64u",
         "-DMODEL_HIDDEN=32u", *(f"-I{folder}" for folder in folders), *map(str, sources), "-o", str(out)],
        check=True,
    )  # fmt: skip
    loaded = ctypes.CDLL(str(out))
    loaded.board_new.restype = ctypes.c_void_p
    loaded.board_new.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32]
    loaded.board_power_on.argtypes = [ctypes.c_void_p, ctypes.c_uint32, LOG]
    loaded.board_poll.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    loaded.board_poll.restype = ctypes.c_uint32
    loaded.board_receive.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
    loaded.board_transmit.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
    loaded.board_transmit.restype = ctypes.c_uint32
    loaded.board_counter.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    loaded.board_counter.restype = ctypes.c_uint32
    return loaded


class Soak:
    """One device, its line, and the server."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.code = library
        self.random = np.random.default_rng(3)
        x, y, self.held_x, self.held_y = split(np.random.default_rng(0))
        self.pixels, self.labels = (x[:40] * 16).astype(np.uint8).tobytes(), y[:40].astype(np.uint8).tobytes()
        self.board = library.board_new(b"press-4", self.pixels, self.labels, 40)
        self.states: Counter[str] = Counter()
        self.longest_s = 0.0  # without a commit
        self.committed_s = 0.0
        self.log = LOG(self._logged)
        self.now_ms = 0.0
        self.up, self.changes_ms = True, 1000 * MEAN_UP_S
        self.up_ms = 0.0
        self.to_device, self.to_server = bytearray(), bytearray()
        self.budget = {"up": 0.0, "down": 0.0}
        self.records: list[Record] = []
        layout = dense((64, 32, 10))
        self.due_s = 0.0  # when the rounds have something to do, unless a message comes
        self.fleet = Fleet(layout, changed=self._changed)
        self.link = SerialLink(seed=5, retransmit_ms=120)
        self.link.open()
        self.connection = 0
        self.store = Store(":memory:", layout, np.zeros(layout.elements, np.float32))
        policy = Policy(
            chunk_elements=60, encodings=("float32",), soft_deadline_s=6 * 3600, hard_deadline_s=12 * 3600
        )  # fmt: skip
        outlets = Outlets(
            lambda message: self.send("press-4", message), lambda version, chunks: None, on_commit=self._committed
        )
        setup = RoundSetup(FedAvg(), Training(epochs=5), policy)
        self.rounds, _ = start_rounds(self.fleet, self.store, setup, outlets)
        self.out = ctypes.create_string_buffer(4096)
        self.power_on()

    def power_on(self) -> None:
        self.code.board_power_on(self.board, int(self.random.integers(1, 2**32)), self.log)

    def counter(self, name: str) -> int:
        return int(self.code.board_counter(self.board, COUNTERS.index(name)))

    def counters(self) -> dict[str, int]:
        return {name: self.counter(name) for name in COUNTERS}

    def send(self, device: str, message: bytes) -> None:
        if self.connection:
            self.link.send(message, reliable=False)

    def _changed(self) -> None:
        self.due_s = 0.0

    def _logged(self, user: int, line: bytes) -> None:
        self.states[line.decode().split(" round=")[0]] += 1

    def _committed(self, record: Record) -> None:
        self.records.append(record)
        self.longest_s = max(self.longest_s, self.now_ms / 1000 - self.committed_s)
        self.committed_s = self.now_ms / 1000

    def _line(self, elapsed_ms: float) -> None:
        """Carry the bytes that the line carries in that time. While it is down, it loses them."""
        for name, pipe in (("up", self.to_server), ("down", self.to_device)):
            self.budget[name] = min(self.budget[name] + elapsed_ms * BYTES_A_MS, 300.0)
            count = min(int(self.budget[name]), len(pipe))
            self.budget[name] -= count
            data = bytes(pipe[:count])
            del pipe[:count]
            if self.up and data and name == "down":
                self.code.board_receive(self.board, data, len(data))
            elif self.up and data:
                self._serve(data)

    def _serve(self, data: bytes) -> None:
        now = int(self.now_ms)
        while messages := self.link.feed(data, now):
            data = b""
            self._follow()
            for message in messages:
                self.fleet.receive("press-4", message, self.now_ms / 1000, self.send)
        self._follow()

    def _follow(self) -> None:
        if self.link.connection != self.connection:
            if self.connection:
                self.fleet.link_lost("press-4", self.send)
                self.link.forget()
            self.connection = self.link.connection

    def turn(self) -> None:
        if self.now_ms >= self.changes_ms:
            self.up = not self.up
            mean = MEAN_UP_S if self.up else MEAN_UP_S * DOWN / (1 - DOWN)
            self.changes_ms = self.now_ms + 1000 * float(self.random.exponential(mean)) + 1
        wait = self.code.board_poll(self.board, int(self.now_ms) & 0xFFFFFFFF)
        count = self.code.board_transmit(self.board, self.out, 256 - min(len(self.to_server), 256))
        self.to_server += self.out.raw[:count]
        self._serve(b"")
        if self.now_ms / 1000 >= self.due_s:
            self.due_s = self.rounds.tick(self.now_ms / 1000)
            self._serve(b"")
        self.to_device += self.link.take()
        busy = bool(self.to_server or self.to_device)
        rest = max(wait, TRAINING_MS if self.counter("state") == WORKING else 1)
        elapsed = max(1.0, min(STEP_MS if busy else 1e9, rest, self.link.wait_ms, self.changes_ms - self.now_ms))
        self.now_ms += elapsed
        self.up_ms += elapsed * self.up
        self._line(elapsed)


def memory() -> int:
    """Resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("untraced")
def test_hours_with_a_line_that_is_mostly_down(library: ctypes.CDLL) -> None:
    """Every round's update arrives whole and counts once, whatever the line does. Memory stays, nothing hangs."""
    soak = Soak(library)
    end = HOURS * 3_600_000
    early = 0
    while soak.now_ms < end:
        soak.turn()
        assert soak.link.unsent < 100 and len(soak.to_device) < 100_000
        if not early and soak.now_ms > end / 4:
            early = memory()
    counters = soak.counters()
    rounds = len(soak.records)
    grown = memory() - early
    print(f"{HOURS} h, up {soak.up_ms / soak.now_ms:.2f}: {rounds} rounds, {counters}, {grown} bytes more")
    assert abs(soak.up_ms / soak.now_ms - (1 - DOWN)) < 0.1
    assert rounds > 10 * HOURS and soak.longest_s < 3600
    assert all((r.selected, r.reported, r.partial) == (1, 1, 0) for r in soak.records)
    assert counters["updates"] in (rounds, rounds + 1)  # a receipt may have come for the round that is open
    assert soak.states["state working"] in (rounds, rounds + 1)  # no update was lost and trained again
    assert counters["connections"] > 2 * HOURS and counters["resumed_in"] > 0 and counters["resumed_out"] > 0
    assert counters["errors"] == counters["misused"] == counters["overruns"] == 0
    assert len(soak.fleet.sessions.by_device) == 1 and not soak.fleet.uploads.waiting
    assert grown < 8_000_000, grown
