# SPDX-License-Identifier: Apache-2.0
"""Sessions and rounds under every interleaving of loss, duplication, reordering and restarts that hypothesis thinks of.

Real C devices, three of them, the server's real session and round, and a store that outlives the server. Every commit
must be the mean of whom it says it folded, each once; and left alone, every state leads on to the next commit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from real_broker import Known

from fedmote.layout import Layout, Tensor
from fedmote.round import Policy, Record, Rounds, State, Training
from fedmote.session import Fleet, Limits
from fedmote.store import Store
from fedmote.strategy import Accumulator, FedAvg, Model, Update
from fedmote_device import Device, Flash

ELEMENTS, CHUNK = 40, 16
LAYOUT = Layout((Tensor("parameter0", (ELEMENTS,)),))
COUNT, SLOTS = 3, 2
LONG_S = 400.0
POLICY = Policy(
    devices=2, select=1.0, goal=0.6, chunk_elements=CHUNK, encodings=("float32",), partial=False,
    soft_deadline_s=40.0, hard_deadline_s=80.0, min_reports=2,
)  # fmt: skip


class Listed(FedAvg):
    """FedAvg that remembers whom it folded into the last model that it made."""

    def __init__(self) -> None:
        self.folding: list[str] = []
        self.folded: list[str] = []

    def begin(self, model: Model) -> Accumulator:
        self.folding = []
        return super().begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        done = super().fold(accumulator, update)
        self.folding += [update.device] * done
        return done

    def finish(self, accumulator: Accumulator) -> Model:
        self.folded = self.folding
        return super().finish(accumulator)


class Interleavings(RuleBasedStateMachine):
    """What may happen, and what must hold after each of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store = Store(":memory:", LAYOUT, np.zeros(ELEMENTS, np.float32))
        self.names = [f"d{i}" for i in range(COUNT)]
        self.trainers = {name: Known(i, ELEMENTS) for i, name in enumerate(self.names)}
        size = Flash.size_for(ELEMENTS, erase_size=256, program_size=4)
        self.flashes = {"d0": Flash(size, erase_size=256, program_size=4)}
        self.down: dict[str, list[bytes]] = {name: [] for name in self.names}
        self.up: dict[str, list[bytes]] = {name: [] for name in self.names}
        self.devices: dict[str, Device] = {}
        self.starts = 0
        self.commits: dict[int, list[str]] = {}
        for name in self.names:
            self.power_on(name)
        self.start_server()

    # ---- the parts

    def power_on(self, name: str) -> None:
        self.starts += 1
        link = "memory:request" if name == "d2" else "memory:"
        self.devices[name] = Device(
            name, link, federation="f", trainer=self.trainers[name], seed=self.starts, flash=self.flashes.get(name),
            examples=self.trainers[name].examples, retry_ms=(500, 4000), delta=name == "d1",
        )  # fmt: skip
        self.up[name].clear()

    def start_server(self) -> None:
        self.strategy = Listed()
        self.fleet = Fleet(LAYOUT, Limits(slots=SLOTS, slot_silence_s=10.0, retry_ms=100))
        self.rounds = Rounds(
            self.fleet, self.store, self.strategy, Training(), POLICY, broadcast=self.broadcast,
            publish=lambda version, chunks: None, on_commit=self.committed,
        )  # fmt: skip

    def broadcast(self, message: bytes) -> None:
        for name in self.names:
            self.send(name, message)

    def send(self, name: str, message: bytes) -> None:
        self.down[name].append(message)

    def committed(self, record: Record) -> None:
        """The model that is durable now is the exact mean of those that were folded."""
        folded = self.strategy.folded
        assert record.round not in self.commits and record.round == max(self.commits, default=0) + 1
        self.commits[record.round] = folded
        assert record.reported == len(folded) == len(set(folded)) >= POLICY.min_reports and record.partial == 0
        assert record.examples == sum(self.trainers[name].examples for name in folded)
        version, done, model = self.store.latest()
        assert done == record.round and version == record.round + 1
        assert np.allclose(model, self.mean(folded, record.round), rtol=1e-6, atol=1e-4)

    def mean(self, names: list[str], round: int) -> NDArray[Any]:
        trainers = [self.trainers[name] for name in names]
        total = sum(t.examples * t.weights(round).astype(np.float64) for t in trainers)
        return np.asarray(total / sum(t.examples for t in trainers))

    def collect(self, name: str) -> None:
        while (message := self.devices[name].take()) is not None:
            self.up[name].append(message)

    def poll(self, name: str, message: bytes | None = None) -> None:
        device, now_ms = self.devices[name], int(1000 * self.now)
        if message is None:
            device.poll(now_ms)
        else:
            device.deliver(message, now_ms)
        self.collect(name)

    def fetch(self, name: str) -> None:
        """The broker hands out the chunk that the device has subscribed to."""
        wanted = self.devices[name].wanted
        chunk = self.rounds.chunk(*wanted) if wanted is not None else None
        self.poll(name, chunk)

    def hear(self, name: str, message: bytes) -> None:
        self.fleet.receive(name, message, self.now, self.send)
        self.rounds.tick(self.now)

    # ---- what may happen

    devices_ = st.integers(0, COUNT - 1).map(lambda i: f"d{i}")
    places = st.integers(0, 3)

    @rule(name=devices_, place=places, again=st.booleans())
    def to_device(self, name: str, place: int, again: bool) -> None:
        """A message arrives, early or late, once or twice."""
        queue = self.down[name]
        if queue:
            at = min(place, len(queue) - 1)
            self.poll(name, queue[at] if again else queue.pop(at))

    @rule(name=devices_, place=places, again=st.booleans())
    def to_server(self, name: str, place: int, again: bool) -> None:
        queue = self.up[name]
        if queue:
            at = min(place, len(queue) - 1)
            self.hear(name, queue[at] if again else queue.pop(at))

    @rule(name=devices_, polls=st.integers(1, 12))
    def work(self, name: str, polls: int) -> None:
        for _ in range(polls):
            self.fetch(name)

    @rule(name=devices_, polls=st.integers(1, 20))
    def talk(self, name: str, polls: int) -> None:
        """Everything goes well for a while."""
        for _ in range(polls):
            self.fair(name)

    @rule(name=devices_, place=places, up=st.booleans())
    def lose(self, name: str, place: int, up: bool) -> None:
        queue = self.up[name] if up else self.down[name]
        del queue[place : place + 1]

    @rule(name=devices_, noticed=st.booleans(), queue_kept=st.booleans())
    def cut_link(self, name: str, noticed: bool, queue_kept: bool) -> None:
        self.devices[name].cut_link()
        self.poll(name)
        self.devices[name].restore_link()
        if not queue_kept:
            self.down[name].clear()
        if noticed:
            self.fleet.lost(name, self.send)
        self.rounds.tick(self.now)

    @rule(name=devices_, queue_kept=st.booleans())
    def power_cycle(self, name: str, queue_kept: bool) -> None:
        if not queue_kept:
            self.down[name].clear()
        self.power_on(name)

    @rule(told=st.booleans())
    def restart_server(self, told: bool) -> None:
        before = {name: len(queue) for name, queue in self.down.items()}
        self.start_server()
        if not told:  # what the new server says at its start is lost
            for name, queue in self.down.items():
                del queue[before[name] :]

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.rounds.tick(self.now)

    @precondition(lambda self: self.devices["d1"].state == "working")
    @rule()
    def withdraw(self) -> None:
        self.devices["d1"].withdraw()

    # ---- what must hold

    @invariant()
    def bounds(self) -> None:
        assert len(self.fleet.slots()) <= SLOTS
        assert len(self.fleet.sessions) <= COUNT and len(self.fleet.waiting) <= COUNT
        assert set(self.rounds.receipts) <= set(self.names)
        assert self.rounds.number == max(self.commits, default=0) + 1
        assert self.flashes["d0"].misused == 0 and self.devices["d0"].storage_errors == 0

    @invariant()
    def an_open_round_lost_nothing(self) -> None:
        """What was folded so far is what the accumulator holds."""
        if self.rounds.state is not State.SELECTING:
            examples = sum(self.trainers[name].examples for name in self.rounds.receipts)
            assert self.rounds.accumulator.whole == examples

    def fair(self, name: str) -> None:
        self.fetch(name)
        if self.down[name]:
            self.poll(name, self.down[name].pop(0))
        while self.up[name]:
            self.hear(name, self.up[name].pop(0))

    def teardown(self) -> None:
        """Left alone, they come to a commit, and then to the next one."""
        goal, end = len(self.commits) + 2, self.now + LONG_S
        while len(self.commits) < goal:
            assert self.now < end, [(d.state, d.round, d.counters) for d in self.devices.values()]
            for name in self.names:
                self.fair(name)
            self.now += 0.05
            self.rounds.tick(self.now)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
