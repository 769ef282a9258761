# SPDX-License-Identifier: Apache-2.0
"""One run: a virtual fleet, the real sessions and rounds, one virtual clock; and its results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.fleet.fleet import Fleet
from fedmote.fleet.limits import Limits
from fedmote.fleet.pace import Pace
from fedmote.fleet.selection import Selection
from fedmote.learning.strategy import Strategy
from fedmote.model.initial import glorot
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.simulation.clock import Clock
from fedmote.simulation.fleet import Start, VirtualFleet
from fedmote.simulation.population import Population
from fedmote.simulation.workload import Workload
from fedmote.store.store import Store
from fedmote_device import kernels

TICK_S = 0.02  # seconds from a message to the server's next tick, which sees all messages until then


@dataclass(frozen=True)
class ServerSettings:
    """The federation's settings, as the real server takes them."""

    strategy: Strategy
    training: Training
    policy: Policy
    limits: Limits = field(default_factory=Limits)
    initial: NDArray[np.float32] | None = None
    selection: Selection = field(default_factory=Selection)
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed round.

    at_s: when it was committed. bytes_up, bytes_down: bytes that arrived at the server, and at devices, until then.
    """

    at_s: float
    bytes_up: int
    bytes_down: int
    record: Record

    @property
    def accuracy(self) -> float:
        """Held-out accuracy of the new model."""
        return self.record.metrics["accuracy"]


@dataclass(frozen=True)
class Result:
    """The results of a run.

    most_awake: the largest number of C clients at a time. clients: the summed counters of each class. digest: SHA-256
    of each arrived message, its time and its device, and of the last model.
    """

    commits: list[Commit]
    model: NDArray[np.float32]
    virtual_s: float
    real_s: float
    events: int
    steps: int
    most_awake: int
    network: Counter[str]
    server: Counter[str]
    clients: dict[str, Counter[str]]
    digest: str


class Simulation:
    """A virtual fleet and its server.

    start_h: time of day at the start. settle_s: seconds within which the first devices connect. on_commit: called with
    each committed round.
    """

    def __init__(
        self, population: Population, workload: Workload, server: ServerSettings, *, seed: int, start_h: float = 0.0,
        settle_s: float = 600.0, on_commit: Callable[[Commit], None] | None = None,
    ) -> None:  # fmt: skip
        self.clock = Clock()
        self.commits: list[Commit] = []
        self._on_commit = on_commit
        self._published: dict[int, list[bytes]] = {}  # the broker's retained chunks, by version
        self._tick_at: float | None = None
        self.fleet = VirtualFleet(population, workload, self.clock, Start(seed, start_h, settle_s), self)
        self.sessions = Fleet(workload.layout, server.limits, self._changed, server.selection)
        initial = glorot(workload.layout, server.policy.seed) if server.initial is None else server.initial
        self.store = Store(":memory:", workload.layout, initial)
        setup = RoundSetup(server.strategy, server.training, server.policy, server.pace)
        outlets = Outlets(self.fleet.broadcast, self._publish, workload.evaluate, self._committed)
        self.rounds, _ = start_rounds(self.sessions, self.store, setup, outlets)
        self._changed()

    def run(self, hours: float, stop: Callable[[Commit], bool] = lambda commit: False) -> Result:
        """Run to this hour since the start, or until `stop` returns True for a commit. A further call continues."""
        started = time.perf_counter()
        self._should_stop = stop
        self.clock.run(3600 * hours)
        return self._result(time.perf_counter() - started)

    def _result(self, real_s: float) -> Result:
        fleet = self.fleet
        model = self.rounds.model
        digest = fleet.network.digest.copy()
        digest.update(model.tobytes())
        return Result(
            list(self.commits), model, self.clock.now, real_s, self.clock.events, fleet.steps, fleet.most_awake,
            Counter(fleet.network.counters), Counter(self.sessions.counters), fleet.totals(),
            digest.hexdigest(),
        )  # fmt: skip

    # ---- between fleet and server

    def receive(self, name: str, message: bytes) -> None:
        """Receive a message at the server."""
        self.sessions.receive(name, message, self.clock.now, self.fleet.send)

    def _changed(self) -> None:
        self._schedule_tick(self.clock.now + TICK_S)

    def _schedule_tick(self, time: float) -> None:
        if self._tick_at is None or time < self._tick_at:
            self._tick_at = time
            self.clock.call_at(time, self._tick, time)

    def _tick(self, time: float) -> None:
        if time == self._tick_at:
            self._tick_at = None
            self._schedule_tick(self.rounds.tick(self.clock.now))

    def _publish(self, version: int, chunks: list[bytes]) -> None:
        self._published[version] = chunks
        self._published = {v: c for v, c in self._published.items() if c}

    def model_chunk(self, version: int, index: int) -> bytes | None:
        """Return a chunk that the broker has retained; None: it has none."""
        chunks = self._published.get(version, [])
        return chunks[index] if index < len(chunks) else None

    # ---- the log

    def _committed(self, record: Record) -> None:
        counters = self.fleet.network.counters
        commit = Commit(self.clock.now, counters["bytes_up"], counters["bytes_down"] + counters["bytes_down_idle"],
                        record)  # fmt: skip
        self.commits.append(commit)
        self.fleet.retire(self.rounds.open_round)
        if self._on_commit is not None:
            self._on_commit(commit)
        if self._should_stop(commit):
            self.clock.stop()


def model_crc32(model: NDArray[np.float32]) -> int:
    """Return the CRC-32 of a model."""
    return kernels.crc32(model.astype("<f4").tobytes())


def summary(result: Result) -> dict[str, Any]:
    """Return the figures that --json writes."""
    return {
        "virtual_seconds": result.virtual_s,
        "events": result.events,
        "rounds": [
            {"at_s": c.at_s, "bytes_up": c.bytes_up, "bytes_down": c.bytes_down, "round": c.record.round,
             "selected": c.record.selected, "reported": c.record.reported, "partial": c.record.partial,
             "dropped": c.record.dropped, "withdrawn": c.record.withdrawn, "examples": c.record.examples,
             "seconds": c.record.seconds, **c.record.metrics}
            for c in result.commits
        ],
        "steps": result.steps,
        "most_clients_at_once": result.most_awake,
        "network": dict(result.network),
        "server": dict(result.server),
        "clients": {name: dict(counters) for name, counters in result.clients.items()},
        "model_crc32": model_crc32(result.model),
        "digest": result.digest,
    }  # fmt: skip
