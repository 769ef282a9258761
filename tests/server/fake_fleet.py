# SPDX-License-Identifier: Apache-2.0
"""The session and rounds of one federation without I/O: the test supplies every message and the time."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fedmote.fleet.fleet import Fleet
from fedmote.fleet.limits import Limits
from fedmote.fleet.pace import Pace
from fedmote.fleet.selection import Selection
from fedmote.learning.guard import Bounds
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategy import Strategy
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.buffered import BufferedRounds
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.rounds.synchronous import State, SynchronousRounds
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote.wire import codec

ELEMENTS, CHUNK = 40, 16
LAYOUT = Layout((Tensor("w", (ELEMENTS,)),))


def new_store() -> Store:
    """An empty federation, whose first model is all zeros."""
    return Store(":memory:", LAYOUT, np.zeros(ELEMENTS, np.float32))


class FakeFleet:
    """The server side of one federation, whose devices the test plays, and the messages that it sent."""

    def __init__(
        self, slots: int = 64, store: Store | None = None, selection: Selection | None = None, pace: Pace | None = None,
        strategy: Strategy | None = None, bounds: Bounds | None = None, **policy: Any,
    ) -> None:  # fmt: skip
        self.now = 0.0
        self.said: list[tuple[str, str]] = []  # (device, message)
        self.records: list[Record] = []
        self.fleet = Fleet(LAYOUT, Limits(slots=slots), selection=selection or Selection())
        self.published: set[int] = set()  # versions of the models that are available
        chosen = Policy(**({"chunk_elements": CHUNK, "soft_deadline_s": 10.0, "hard_deadline_s": 20.0} | policy))
        setup = RoundSetup(strategy or FedAvg(), Training(), chosen, pace or Pace(), bounds=bounds or Bounds())
        outlets = Outlets(lambda message: self.send("all", message), self.publish, on_commit=self.records.append)
        self.rounds, self.tasks = start_rounds(self.fleet, store or new_store(), setup, outlets)

    @property
    def sync(self) -> SynchronousRounds:
        """Return the rounds of the synchronous policy."""
        assert isinstance(self.rounds, SynchronousRounds)
        return self.rounds

    def state(self) -> State:
        """Return the state of the synchronous rounds."""
        return self.sync.state

    @property
    def buffered(self) -> BufferedRounds:
        """Return the rounds of the asynchronous policy."""
        assert isinstance(self.rounds, BufferedRounds)
        return self.rounds

    def publish(self, version: int, chunks: list[bytes]) -> None:
        (self.published.add if chunks else self.published.remove)(version)

    def send(self, device: str, message: bytes) -> None:
        body = codec.decode(message)
        assert body is not None
        self.said.append((device, type(body).__name__))

    def hear(self, device: str, name: str, **fields: Any) -> None:
        self.fleet.receive(device, codec.encode(name, **fields), self.now, self.send)

    def come(self, *devices: str, held_round: int = 0, examples: int = 0) -> None:
        for device in devices:
            self.hear(
                device, "Hello", device_id=device, elements=ELEMENTS, layout_crc32=LAYOUT.crc32, held_round=held_round,
                examples=examples,
            )  # fmt: skip
        self.rounds.tick(self.now)

    def begin(self, device: str, value: float, examples: int = 1, round: int = 1, delta: bool = False) -> int:
        crc32 = zlib.crc32(np.full(ELEMENTS, value, "<f4").tobytes())
        self.hear(
            device, "UpdateBegin", round=round, base_version=round, crc32=crc32, elements=ELEMENTS,
            chunk_elements=CHUNK, examples=examples, steps=1, planned_steps=1, kind=int(delta),
        )  # fmt: skip
        return crc32

    def chunks(self, device: str, value: float, *indices: int, round: int = 1) -> None:
        data = np.full(ELEMENTS, value, "<f4")
        for i in indices:
            self.hear(device, "UpdateChunk", round=round, index=i, data=data[CHUNK * i : CHUNK * (i + 1)].tobytes())

    def report(self, device: str, value: float, examples: int = 1, round: int = 1, delta: bool = False) -> None:
        crc32 = self.begin(device, value, examples, round, delta)
        self.chunks(device, value, 0, 1, 2, round=round)
        self.hear(device, "UpdateEnd", round=round, chunks=3, crc32=crc32)

    def tick(self, now: float) -> None:
        self.now = now
        self.rounds.tick(now)
