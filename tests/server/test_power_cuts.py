# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every case cuts the power of the same two devices, which are defined at the top.
"""A device loses its power at every operation of flash and link; the server still counts its update once."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

import numpy as np
import pytest
from real_broker import Known, mean

from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.rounds.synchronous import SynchronousRounds
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote.wire import codec
from fedmote.wire.Hello import Hello
from fedmote.wire.UpdateBegin import UpdateBegin
from fedmote.wire.UpdateChunk import UpdateChunk
from fedmote_device import Device, Flash
from fedmote_device.flash import CUTS

ELEMENTS, CHUNK = 100, 16
CHUNKS = -(-ELEMENTS // CHUNK)
LAYOUT = Layout((Tensor("parameter0", (ELEMENTS,)),))
LONG_S = 300.0  # of the virtual clock: a round that takes this long is stuck
GEOMETRIES = [(256, 1), (128, 4), (4096, 8), (512, 32)]


class PowerCut(Exception):
    """Raised at the link operation where the power is to be cut."""


class Place:
    """The place of a device: its flash, its messages in transit, and the client that runs there now."""

    def __init__(self, name: str, flash: Flash | None, kind: type[Known] = Known, **options: Any) -> None:
        self.name, self.flash, self.options = name, flash, options
        self.trainer = kind(int(name[1:]), ELEMENTS)
        self.inbox: deque[bytes] = deque()
        self.starts = 0
        self.operations = 0  # of the link
        self.cut_at, self.cut_after = 0, False
        self.fetched: list[list[int]] = []  # model chunks, by start
        self.power_on()

    def power_on(self) -> None:
        self.starts += 1
        self.fetched.append([])
        if self.flash is not None:
            self.flash.power_on()
        self.device = Device(
            self.name, "memory:", federation="f", trainer=self.trainer, seed=17 * self.starts, flash=self.flash,
            examples=self.trainer.examples, **self.options,
        )  # fmt: skip

    def step(self, after: bool) -> None:
        """One operation of the link begins, or has ended."""
        self.operations += not after
        if self.operations == self.cut_at and after == self.cut_after:
            self.cut_at = 0
            raise PowerCut


class Wanderer(Known):
    """Trains from the given model to values that no encoding represents exactly."""

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, float]]:
        step = np.random.default_rng([int(config["round"]), self.index]).normal(size=self.elements) / 10
        return [(parameters[0] + step).astype(np.float32)], self.examples, {"loss": 1.0}


class World:
    """The server's real session and round, and devices on links in memory, on one virtual clock."""

    def __init__(self, flash: Flash | None, initial: float = 0.0, **options: Any) -> None:
        self.now = 0.0
        self.places = {p.name: p for p in (Place("d0", flash, **options), Place("d1", None))}
        self.records: list[Record] = []
        self.fleet = Fleet(LAYOUT)
        self.said: dict[tuple[Any, ...], set[bytes]] = {}  # by d0 of an update, by message, round and chunk
        policy = Policy(devices=2, goal=1.0, chunk_elements=CHUNK, soft_deadline_s=LONG_S)
        outlets = Outlets(self.broadcast, lambda version, chunks: None, on_commit=self.records.append)
        store = Store(":memory:", LAYOUT, np.full(ELEMENTS, initial, np.float32))
        self.rounds, _ = start_rounds(self.fleet, store, RoundSetup(FedAvg(), Training(), policy), outlets)

    def broadcast(self, message: bytes) -> None:
        for name in self.places:
            self.send(name, message)

    def send(self, device: str, message: bytes) -> None:
        self.places[device].inbox.append(message)

    def poll(self, place: Place) -> None:
        now_ms = int(1000 * self.now)
        if place.device.wanted is not None and not place.inbox:
            version, index = place.device.wanted
            chunk = self.rounds.model_chunk(version, index)
            if chunk is not None:
                place.step(False)
                place.fetched[-1].append(index)
                place.device.deliver(chunk, now_ms)
                place.step(True)
        elif place.inbox:
            place.step(False)
            place.device.deliver(place.inbox.popleft(), now_ms)
            place.step(True)
        else:
            place.device.poll(now_ms)
        if place.flash is not None and place.flash.off:
            raise PowerCut  # later messages were not sent
        while (message := place.device.take()) is not None:
            place.step(False)
            self.note(place, message)
            self.fleet.receive(place.name, message, self.now, self.send)
            place.step(True)

    def note(self, place: Place, message: bytes) -> None:
        body = codec.decode(message) if place.name == "d0" else None
        if isinstance(body, UpdateBegin | UpdateChunk):
            name = type(body).__name__
            index = body.Index() if isinstance(body, UpdateChunk) else 0
            self.said.setdefault((name, body.Round(), index), set()).add(message)

    def turn(self) -> list[Place]:
        """Let every participant act once; return the places that lost power."""
        dark = []
        for place in self.places.values():
            try:
                self.poll(place)
            except PowerCut:
                dark.append(place)
        self.rounds.tick(self.now)
        self.now += 0.05
        return dark

    def run(self, rounds: int, queue_kept: bool = True, noticed: bool = True) -> list[int]:
        """Run until so many rounds are committed and all devices know; return what was restored after each power cut.
        queue_kept: the broker keeps messages meanwhile. noticed: it reports that the device is lost.
        """
        restored = []
        end, self.rounds.last_round = self.now + LONG_S, rounds
        while len(self.records) < rounds or any(p.device.state != "idle" for p in self.places.values()):
            assert self.now < end, [(p.device.state, p.device.counters) for p in self.places.values()]
            for place in self.turn():
                durable, before = place.device.durable, place.device.round
                if not queue_kept:
                    place.inbox.clear()
                if noticed:
                    self.fleet.link_lost(place.name, self.send)
                place.power_on()
                restored.append(place.device.restored)
                if place.device.round == before and place.device.state == "downloading":
                    assert place.device.restored >= durable
                    place.fetched[-1] = []
        return restored

    def assert_exactly_once(self, rounds: int, most_errors: int = 0) -> None:
        assert [(r.round, r.reported, r.partial) for r in self.records] == [(n, 2, 0) for n in range(1, rounds + 1)]
        wanted = mean([p.trainer for p in self.places.values()], rounds)
        assert np.array_equal(self.rounds.model, wanted)
        place = self.places["d0"]
        assert place.flash is None or place.flash.misused == 0
        assert place.device.storage_errors <= most_errors


def new_flash(erase_size: int, program_size: int) -> Flash:
    size = Flash.size_for(ELEMENTS, erase_size=erase_size, program_size=program_size, least_chunk=CHUNK)
    return Flash(size, erase_size=erase_size, program_size=program_size)


@pytest.mark.parametrize(("erase_size", "program_size"), GEOMETRIES)
@pytest.mark.usefixtures("untraced")
def test_a_cut_at_every_operation_of_the_flash(erase_size: int, program_size: int) -> None:
    """The flash operation breaks off in every possible way. A download continues after its last durable chunk."""
    clean = World(new_flash(erase_size, program_size))
    clean.run(2)
    clean.assert_exactly_once(2)
    assert clean.places["d0"].flash is not None
    operations = clean.places["d0"].flash.operations
    assert operations > 3 * CHUNKS
    seen = set()
    for operation, how in itertools.product(range(1, operations + 1), CUTS):
        flash = new_flash(erase_size, program_size)
        world = World(flash)
        flash.cut_power(operation, how)
        restored = world.run(2)
        assert len(restored) == 1
        world.assert_exactly_once(2)
        seen.update(restored)
    assert seen >= set(range(CHUNKS + 2))  # from nothing to the whole model and the update


@pytest.mark.parametrize(("erase_size", "program_size"), GEOMETRIES[1:3])
def test_a_second_cut_while_it_recovers(erase_size: int, program_size: int) -> None:
    """A second power cut during the recovery from the first one does no harm either."""
    clean = World(new_flash(erase_size, program_size))
    clean.run(1)
    assert clean.places["d0"].flash is not None
    for first, second in itertools.product(range(1, clean.places["d0"].flash.operations + 1, 3), range(1, 20)):
        flash = new_flash(erase_size, program_size)
        world = World(flash)
        flash.cut_power(first, "garbage")
        while not world.turn():
            pass
        place = world.places["d0"]
        world.fleet.link_lost("d0", world.send)
        flash.power_on()
        flash.cut_power(second, CUTS[second % 4])
        place.device = Device(
            "d0", "memory:", federation="f", trainer=place.trainer, seed=9, flash=flash, examples=place.trainer.examples
        )
        if flash.off:  # during the recovery
            place.power_on()
        world.run(1)
        world.assert_exactly_once(1)


@pytest.mark.parametrize("kept", [False, True], ids=["flash", "no_flash"])
@pytest.mark.parametrize("queue_kept", [True, False])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_cut_at_every_operation_of_the_link(kept: bool, queue_kept: bool, noticed: bool) -> None:
    """Power is cut before and after each message in either direction. The update counts once, even without flash."""
    clean = World(new_flash(256, 4) if kept else None)
    clean.run(2)
    operations = clean.places["d0"].operations
    assert operations > 2 * 2 * CHUNKS
    for operation, after in itertools.product(range(1, operations + 1), (False, True)):
        world = World(new_flash(256, 4) if kept else None)
        place = world.places["d0"]
        place.cut_at, place.cut_after = operation, after
        world.run(2, queue_kept, noticed)
        assert place.starts == 2 and place.cut_at == 0
        world.assert_exactly_once(2)


@pytest.mark.parametrize("encoding", ["float32", "int8"])
@pytest.mark.parametrize("delta", [False, True])
def test_a_restored_update_has_the_same_bytes(encoding: str, delta: bool) -> None:
    """Every message of a restored update is the same as before: scales, rounding and base are kept."""
    options: dict[str, Any] = {"kind": Wanderer, "encoding": encoding, "delta": delta, "initial": 0.3}
    clean = World(new_flash(128, 4), **options)
    clean.run(2)
    assert len(clean.said) == 2 * (1 + CHUNKS) and all(len(messages) == 1 for messages in clean.said.values())
    place = clean.places["d0"]
    assert place.flash is not None
    restored = 0
    for operation in range(1, place.flash.operations + 1):
        flash = new_flash(128, 4)
        world = World(flash, **options)
        flash.cut_power(operation, CUTS[operation % 4])
        restored += max(world.run(2)) > CHUNKS
        assert world.said == clean.said and np.array_equal(world.rounds.model, clean.rounds.model)
    for operation in range(1, place.operations + 1):
        world = World(new_flash(128, 4), **options)
        world.places["d0"].cut_at = operation
        restored += max(world.run(2)) > CHUNKS
        assert world.said == clean.said and np.array_equal(world.rounds.model, clean.rounds.model)
    assert restored > 10


def test_a_finished_update_is_not_trained_again() -> None:
    """After an update is durable, a power cut causes no new training: the same update is offered."""
    flash = new_flash(256, 4)
    world = World(flash)
    place = world.places["d0"]
    while place.device.state not in ("offering", "uploading"):
        world.turn()
    assert place.trainer.fits == [1] and place.device.restored == 0
    while place.device.state == "offering":
        world.turn()  # until it is durable and is sent
    world.fleet.link_lost("d0", world.send)
    place.power_on()
    assert place.device.state == "offering" and place.device.restored == CHUNKS + 1
    world.run(1)
    world.assert_exactly_once(1)
    assert place.trainer.fits == [1]


def test_an_update_of_another_life_of_the_server_is_refused() -> None:
    """If the database was made anew, an update for the old one is refused, even with the same round and version."""
    flash = new_flash(256, 4)
    world = World(flash)
    while world.places["d0"].device.state != "uploading":
        world.turn()
    other = World(flash, initial=5.0)
    place = other.places["d0"]
    assert place.device.state == "offering" and place.device.round == 1
    assert isinstance(other.rounds, SynchronousRounds)
    while not other.rounds.cohort.planned:
        other.turn()
    place.inbox.clear()
    other.fleet.link_lost("d0", other.send)
    place.power_on()
    assert place.device.state == "offering"
    other.run(1)
    assert place.device.counters["withdrawals"] == 0 and place.trainer.fits == []
    assert [(r.round, r.reported) for r in other.records] == [(1, 1)]
    assert np.array_equal(other.rounds.model, mean([other.places["d1"].trainer], 1))


@pytest.mark.parametrize("state", ["downloading", "offering"])
@pytest.mark.usefixtures("untraced")
def test_damaged_flash_costs_time_and_nothing_else(state: str) -> None:
    """If any byte is damaged while the power is off, the data that held it is fetched or trained again."""
    size = new_flash(256, 4).image.size
    for at in range(0, size, 3):
        flash = new_flash(256, 4)
        world = World(flash)
        place = world.places["d0"]
        while place.device.state != state or place.device.durable < 4:
            world.turn()
        while state == "offering" and place.device.state == state:
            world.turn()  # until the update is durable
        world.fleet.link_lost("d0", world.send)
        flash.image[at] ^= 0x41
        place.power_on()
        world.run(1)
        world.assert_exactly_once(1, most_errors=1)


def test_a_model_outlives_its_round() -> None:
    """After the commit and a restart, the device has its model at once, and says so."""
    flash = new_flash(256, 4)
    world = World(flash)
    world.run(1)
    place = world.places["d0"]
    model = place.device.model.copy()
    place.power_on()
    assert place.device.restored == CHUNKS and place.device.state in ("offline", "greeting")
    assert not np.array_equal(place.device.model, model)  # the base of the round, not the trained model
    assert np.array_equal(place.device.model, np.zeros(ELEMENTS, np.float32))
    hello = None
    while hello is None:
        place.device.poll(0)
        message = place.device.take()
        hello = codec.decode(message) if message is not None else None
    assert isinstance(hello, Hello) and hello.ModelVersion() == 1


def test_another_firmware_or_model_ignores_what_it_finds() -> None:
    """A journal of another layout is ignored."""
    flash = new_flash(256, 4)
    World(flash).run(1)
    other = Known(0, ELEMENTS - 1)
    device = Device("d0", "memory:", federation="f", trainer=other, flash=flash)
    assert device.restored == 0 and device.round == 0


def test_a_model_that_does_not_fit_is_worked_on_all_the_same() -> None:
    """If the storage is too small for the model, the device reports it and works without storage."""
    flash = Flash(2 * (1024 + 256), erase_size=256, program_size=4)
    world = World(flash)
    world.run(1)
    assert [(r.reported, r.partial) for r in world.records] == [(2, 0)]
    assert world.places["d0"].device.storage_errors > 0
    with pytest.raises(ValueError, match="refuses these settings"):
        Device("d", "memory:", federation="f", trainer=Known(0, 9), flash=Flash(2048, erase_size=256, program_size=4))
    with pytest.raises(ValueError, match="erase_size 100"):
        Flash.size_for(10, erase_size=100)
