# SPDX-License-Identifier: Apache-2.0
# Over 200 lines: hypothesis wants every rule and invariant of a state machine in one class.
"""Sessions and rounds under every interleaving of loss, duplication, reordering and restarts that hypothesis thinks of.

Real C devices, three of them, the server's real session and round, and a store that outlives the server. Every commit
must be the mean of whom it says it folded, each once, for what came of it; and left alone, every state leads on to the
next commit. For synchronous rounds that take whole updates only, for those that take them in part, for asynchronous
ones, and for those of tiers with adaptive deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from real_broker import Known

from fedmote.fleet.fleet import Fleet
from fedmote.fleet.limits import Limits
from fedmote.fleet.selection import Selection
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.update import Update
from fedmote.model.layout import Layout, Model, Tensor
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote.tasks.rollback import RollBack
from fedmote_device import Device, Flash

ELEMENTS, CHUNK = 40, 16
LAYOUT = Layout((Tensor("parameter0", (ELEMENTS,)),))
COUNT, SLOTS = 3, 2
LONG_S = 400.0
WHOLE = Policy(
    devices=2, select=1.0, goal=0.6, chunk_elements=CHUNK, encodings=("float32",), partial=False,
    soft_deadline_s=40.0, hard_deadline_s=80.0, min_reports=2,
)  # fmt: skip
IN_PART = replace(WHOLE, partial=True, soft_deadline_s=3.0, hard_deadline_s=6.0)
ASYNCHRONOUS = replace(WHOLE, partial=True, buffer=2, max_staleness=1, devices=1, min_reports=1)


@dataclass
class Fold:
    """What an update must have added."""

    device: str
    round: int  # of the plan
    covered: NDArray[np.bool_]
    discount: float


class Listed(FedAvg):
    """FedAvg that remembers the updates folded into the last model."""

    def __init__(self, plan_round: Callable[[str], int]) -> None:
        self.plan_round = plan_round
        self.folding: list[Fold] = []
        self.folded: list[Fold] = []

    def begin(self, model: Model) -> Accumulator:
        self.folding = []
        return super().begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        done = super().fold(accumulator, update)
        chunks = update.received if update.received is not None else bytes([1]) * -(-ELEMENTS // CHUNK)
        covered = np.repeat(np.frombuffer(chunks, np.bool_), CHUNK)[:ELEMENTS]
        self.folding += [Fold(update.device, self.plan_round(update.device), covered, update.discount)] * done
        return done

    def finish(self, accumulator: Accumulator) -> Model:
        self.folded = self.folding
        return super().finish(accumulator)


class Interleavings(RuleBasedStateMachine):
    """The events that may happen, and the invariants that must hold after each of them."""

    policy = WHOLE
    selection = Selection()

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
        self.commits: dict[int, list[Fold]] = {}
        self.outcomes: list[tuple[RollBack, Any]] = []
        self.models = {1: np.zeros(ELEMENTS, np.float32)}  # models by version
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
        self.strategy = Listed(self.plan_round)
        limits = Limits(slots=SLOTS, slot_silence_s=10.0, retry_ms=100)
        self.fleet = Fleet(LAYOUT, limits, selection=self.selection)
        setup = RoundSetup(self.strategy, Training(), self.policy)
        outlets = Outlets(self.broadcast, lambda version, chunks: None, on_commit=self.committed)
        self.rounds, self.tasks = start_rounds(self.fleet, self.store, setup, outlets)

    def broadcast(self, message: bytes) -> None:
        for name in self.names:
            self.send(name, message)

    def send(self, name: str, message: bytes) -> None:
        self.down[name].append(message)

    def plan_round(self, name: str) -> int:
        """Return the round of the plan that asked for the update being folded."""
        work = self.rounds.assignment(name)
        return self.rounds.number if work is None else work.round

    def committed(self, record: Record) -> None:
        """The durable model is the exact mean of the folded updates."""
        assert record.round not in self.commits and record.round == max(self.commits, default=0) + 1
        if record.rolled_back_to:
            self.commits[record.round] = []
            version, done, model = self.store.models.latest()
            assert (version, done, record.reported) == (record.round + 1, record.round, 0)
            assert np.array_equal(model, self.models[record.rolled_back_to])
            self.models[version] = model
            return
        folded = self.strategy.folded
        names = [fold.device for fold in folded]
        self.commits[record.round] = folded
        assert record.reported == len(names) == len(set(names)) >= self.policy.min_reports
        assert record.partial == sum(not fold.covered.all() for fold in folded)
        assert self.policy.partial or record.partial == 0
        assert record.examples == sum(self.trainers[name].examples for name in names)
        earlier = {
            (fold.device, fold.round) for r, folds in self.commits.items() if r != record.round for fold in folds
        }
        assert not earlier & {(fold.device, fold.round) for fold in folded}
        assert all(0 <= record.round - fold.round <= self.policy.max_staleness for fold in folded)
        version, done, model = self.store.models.latest()
        assert done == record.round and version == record.round + 1
        assert np.allclose(model, self.mean(folded, version - 1), rtol=1e-6, atol=1e-3)
        self.models[version] = model

    def mean(self, folds: list[Fold], version: int) -> NDArray[Any]:
        """Return the model that follows that version with these folds."""
        base = self.models[version].astype(np.float64)
        total, weight = np.zeros(ELEMENTS), np.zeros(ELEMENTS)
        for fold in folds:
            trainer = self.trainers[fold.device]
            moved = trainer.weights(fold.round).astype(np.float64) - self.models[fold.round]
            total += fold.covered * trainer.examples * fold.discount * moved
            weight += fold.covered * trainer.examples
            assert fold.discount == (1 + version - fold.round) ** -self.policy.staleness_exponent
        return base + total / np.where(weight, weight, 1)

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
        """The broker serves the chunk that the device has subscribed to."""
        wanted = self.devices[name].wanted
        chunk = self.rounds.model_chunk(*wanted) if wanted is not None else None
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
        """All messages arrive in order for a while."""
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
            self.fleet.link_lost(name, self.send)
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
        if not told:  # the first messages of the new server are lost
            for name, queue in self.down.items():
                del queue[before[name] :]

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.rounds.tick(self.now)

    @rule(back=st.integers(1, 3))
    def roll_back(self, back: int) -> None:
        """Roll back between rounds, when no device is training and the server is not restarted first."""
        request = RollBack(max(1, self.rounds.version - back))
        self.tasks.submit(request, lambda outcome: self.outcomes.append((request, outcome)))
        self.rounds.tick(self.now)

    @precondition(lambda self: self.devices["d1"].state == "working")
    @rule()
    def withdraw(self) -> None:
        self.devices["d1"].withdraw()

    # ---- what must hold

    @invariant()
    def bounds(self) -> None:
        assert len(self.fleet.uploads.slots.in_flight()) <= SLOTS
        assert len(self.fleet.sessions.by_device) <= COUNT and len(self.fleet.uploads.waiting) <= COUNT
        assert set(self.rounds.receipts) <= set(self.names)
        assert self.rounds.number == max(self.commits, default=0) + 1
        assert self.flashes["d0"].misused == 0 and self.devices["d0"].storage_errors == 0

    @invariant()
    def what_was_asked_for_was_done(self) -> None:
        for request, outcome in self.outcomes:
            assert isinstance(outcome, dict) and outcome["rolled_back_to"] == request.version
            assert np.array_equal(self.models[outcome["version"]], self.models[request.version])

    @invariant()
    def an_open_round_lost_nothing(self) -> None:
        """The accumulator holds exactly the updates folded so far."""
        rounds, folding = self.rounds, self.strategy.folding
        assert sorted(rounds.receipts) == sorted(fold.device for fold in folding)
        expected = self.mean(folding, rounds.version)
        assert np.allclose(rounds.accumulator.mean(), expected, rtol=1e-6, atol=1e-3)

    def fair(self, name: str) -> None:
        self.fetch(name)
        if self.down[name]:
            self.poll(name, self.down[name].pop(0))
        while self.up[name]:
            self.hear(name, self.up[name].pop(0))

    def teardown(self) -> None:
        """Without further faults, a commit follows, and then another one."""
        goal, end = len(self.commits) + 2, self.now + LONG_S
        while len(self.commits) < goal:
            assert self.now < end, [(d.state, d.round, d.counters) for d in self.devices.values()]
            for name in self.names:
                self.fair(name)
            self.now += 0.05
            self.rounds.tick(self.now)


class InterleavingsInPart(Interleavings):
    """Deadlines cut uploads off, and the chunks that arrived count."""

    policy = IN_PART


class InterleavingsAsynchronous(Interleavings):
    """Each device has a round of its own."""

    policy = ASYNCHRONOUS


class InterleavingsSelected(InterleavingsInPart):
    """Devices in two tiers by speed, selected by utility, with adaptive deadlines."""

    policy = replace(IN_PART, select=2.0, adaptive=True, min_deadline_s=1.0)
    selection = Selection(by="utility", tiers=2)


SETTINGS = settings(max_examples=60, stateful_step_count=50)
TestInterleavings = Interleavings.TestCase
TestInterleavingsInPart = InterleavingsInPart.TestCase
TestInterleavingsAsynchronous = InterleavingsAsynchronous.TestCase
TestInterleavingsSelected = InterleavingsSelected.TestCase
for case in (TestInterleavings, TestInterleavingsInPart, TestInterleavingsAsynchronous, TestInterleavingsSelected):
    case.settings = SETTINGS
del case  # pytest would run it once more
