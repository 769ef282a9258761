# SPDX-License-Identifier: Apache-2.0
"""One device, or the strategy, does what it must not: the model stays sound, and the others go on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from fake_fleet import ELEMENTS, LAYOUT, FakeFleet, new_store
from numpy.typing import NDArray

from fedmote import Federation, Server
from fedmote.errors import StoreError, StrategyError
from fedmote.fleet.penalties import Penalties
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.guard import Bounds
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.update import Update
from fedmote.store.store import Store

Floats = NDArray[np.float32]
HONEST = {"a": 1.0, "b": 1.1, "c": 0.9}
HUGE = 3e38


def play(fleet: FakeFleet, values: dict[str, float], examples: dict[str, int] | None = None) -> None:
    """Let each device report its value, added to the model, as the update of the present round."""
    fleet.tick(fleet.now + 1.0)
    number = fleet.rounds.number
    for device, value in values.items():
        fleet.report(device, value, (examples or {}).get(device, 10), round=number, delta=True)
    fleet.tick(fleet.now + 1.0)


def begin(**options: Any) -> FakeFleet:
    """A fleet of three honest devices and one that is not, each with ten examples."""
    fleet = FakeFleet(goal=1.0, devices=3, **options)
    fleet.come(*HONEST, "x", examples=10)
    return fleet


def model(fleet: FakeFleet) -> Floats:
    return fleet.rounds.store.models.latest()[2]


def test_a_huge_update_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """One finite update of 3e38 never reaches the model. Its device is told, logged once a round, and paused."""
    fleet = begin()
    play(fleet, HONEST | {"x": 1.0})
    before = model(fleet)
    with caplog.at_level(logging.WARNING):
        play(fleet, HONEST | {"x": HUGE}, {"x": 1_000_000})
    assert np.allclose(model(fleet), before + 1.0)
    assert (fleet.records[-1].reported, fleet.records[-1].refused) == (3, 1)
    assert fleet.said.count(("x", "Refusal")) == 1
    assert [record.message for record in caplog.records] == [
        "x: its update of round 2 is refused: it changes the model by 3e+38 (root mean square); the bound is 10"
    ]
    for _ in range(3):
        play(fleet, HONEST)  # x is paused, so the others need not wait for it
    assert [record.reported for record in fleet.records] == [4, 3, 3, 3, 3]


@pytest.mark.parametrize("value", [HUGE, 1e30, 1e5])
def test_a_huge_update_in_the_first_round(value: float, caplog: pytest.LogCaptureFixture) -> None:
    """There is no median yet: the round fails, its model stays, and the next round knows better."""
    fleet = begin()
    play(fleet, {"x": value} | HONEST)
    assert np.abs(model(fleet)).max() <= 1.1, fleet.records
    if value < 1e6:  # below the absolute bound: it was folded, and the result was not taken
        assert "moves the model by" in fleet.records[0].failure and not model(fleet).any()
    play(fleet, {"x": value} | HONEST)
    assert fleet.records[-1].failure == ""
    assert np.abs(model(fleet)).max() <= 2.3


@pytest.mark.parametrize("over", ["clip", "refuse"])
def test_an_update_over_its_bound(over: Literal["clip", "refuse"]) -> None:
    """Its difference counts, scaled down to the bound of ten times the median; or it is refused."""
    fleet = begin(bounds=Bounds(over=over))
    play(fleet, HONEST | {"x": 1.0})
    before = model(fleet)
    play(fleet, HONEST | {"x": -50.0})
    assert np.allclose(model(fleet), before + ((3.0 - 10.0) / 4 if over == "clip" else 1.0), rtol=1e-5)
    assert fleet.records[-1].refused == (over == "refuse")


def test_a_million_examples_count_as_ten_times_the_median() -> None:
    fleet = begin()
    play(fleet, HONEST | {"x": 9.0}, {"x": 1_000_000})
    assert np.allclose(model(fleet), (10 * 3.0 + 100 * 9.0) / 130, rtol=1e-5)


def test_a_chunk_without_an_end_is_bounded_too() -> None:
    """One chunk of 1e30, cut off at the deadline, changes nothing."""
    fleet = begin()
    play(fleet, HONEST | {"x": 1.0})
    before = model(fleet)
    fleet.tick(fleet.now + 1.0)
    for device, value in HONEST.items():
        fleet.report(device, value, 10, round=2, delta=True)
    fleet.begin("x", 1e30, 10, round=2, delta=True)
    fleet.chunks("x", 1e30, 0, round=2)
    fleet.tick(fleet.now + 21.0)
    assert np.allclose(model(fleet), before + 1.0)
    assert fleet.records[-1].refused == 1


def test_the_bound_follows_the_fleet() -> None:
    """If all devices move further, for example after a new learning rate, their updates count again."""
    fleet = FakeFleet(goal=1.0, devices=3)
    fleet.fleet.penalties.first_s = 0.0
    fleet.come(*HONEST)
    for _ in range(10):
        play(fleet, HONEST)
    for _ in range(40):
        play(fleet, {device: 1000 * value for device, value in HONEST.items()})
        if fleet.records[-1].reported == 3 and fleet.records[-1].refused == 0 and np.abs(model(fleet)).max() > 100:
            return
    pytest.fail(f"refused for ever: {fleet.records[-1]}")


def test_bad_offers_are_refused_once_a_round_and_paused(caplog: pytest.LogCaptureFixture) -> None:
    """Three devices with 0 examples: one refusal each and round, with growing pauses; the reason is logged."""
    fleet = FakeFleet(goal=1.0)
    fleet.come("a", "b", "c")
    with caplog.at_level(logging.WARNING):
        for second in range(600):
            fleet.tick(float(second))
            for device in "abc":
                fleet.begin(device, 1.0, examples=0, round=fleet.rounds.number)
    refused = fleet.rounds.record.refused
    assert refused <= 3 * 8  # after 10, 20, 40, ... seconds
    assert len(caplog.records) == 3 and "0 examples; 1 to 1000000 are believed" in caplog.text


class Raises(FedAvg):
    """A strategy with a fault."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        if self.where == "fold":
            raise RuntimeError("the user's mistake")
        return super().fold(accumulator, update)

    def finish(self, accumulator: Accumulator) -> Floats:
        if self.where == "finish":
            raise RuntimeError("the user's mistake")
        return super().finish(accumulator)


@pytest.mark.parametrize("where", ["fold", "finish"])
@pytest.mark.parametrize("buffer", [0, 3])
def test_a_strategy_that_raises(where: str, buffer: int, caplog: pytest.LogCaptureFixture) -> None:
    """One traceback a round; the round ends with its model as it was; after three the server ends."""
    fleet = FakeFleet(strategy=Raises(where), devices=3, buffer=buffer)
    fleet.come(*HONEST)
    for _ in range(2):
        play(fleet, HONEST)
    assert [record.failure for record in fleet.records] == [
        f"{where}() of strategy {__name__}.Raises raised an exception"
    ] * 2
    assert caplog.text.count("RuntimeError: the user's mistake") == 2
    with pytest.raises(StrategyError, match=rf"3 rounds in a row failed; the last: {where}\(\) of strategy .*Raises"):
        play(fleet, HONEST)
    assert not model(fleet).any()


class Returns(FedAvg):
    """A strategy whose result is wrong."""

    def __init__(self, result: object) -> None:
        self.result = result

    def finish(self, accumulator: Accumulator) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (np.zeros(ELEMENTS), r"expected a float32 array of shape \(40,\), found float64 of shape \(40,\)"),
        (np.zeros(5, np.float32), r"found float32 of shape \(5,\)"),
        (None, "found NoneType"),
        (np.full(ELEMENTS, np.nan, np.float32), "its largest element is nan"),
        (np.full(ELEMENTS, 1e20, np.float32), "its largest element is 1e"),
    ],
)
def test_a_wrong_result_is_never_committed(result: object, why: str) -> None:
    store = new_store()
    fleet = FakeFleet(strategy=Returns(result), devices=3, store=store)
    fleet.come(*HONEST)
    play(fleet, HONEST)
    assert not model(fleet).any()
    with pytest.raises(StrategyError, match=why):
        for _ in range(2):
            play(fleet, HONEST)
    assert not store.models.latest()[2].any()


def test_pauses_double_and_end_with_success() -> None:
    now = 0.0
    penalties = Penalties(10.0, lambda: now)
    assert [penalties.note_refused("a") for _ in range(4)] == [10.0, 20.0, 40.0, 80.0]
    assert penalties.is_paused("a") and not penalties.is_paused("b")
    now = 80.0
    assert not penalties.is_paused("a")
    penalties.clear("a")
    assert penalties.note_refused("a") == 10.0
    assert [penalties.note_silent("b") for _ in range(3)] == [0.0, 10.0, 20.0]
    assert [penalties.note_refused("c") for _ in range(40)][-1] == 3600.0


@pytest.mark.parametrize("poison", [np.nan, 3e38])
def test_a_last_model_that_cannot_be_trained(tmp_path: Path, poison: float) -> None:
    """A database from before the bounds: the server says which model is sound, and goes on from it when asked."""
    path = tmp_path / "f.sqlite"
    store = Store(path, LAYOUT, np.ones(ELEMENTS, np.float32))
    store.commit(1, np.full(ELEMENTS, 2.0, np.float32), {})
    store.commit(2, np.full(ELEMENTS, poison, np.float32), {})
    store.close()
    server = Server(Federation("f", LAYOUT, "mqtt://127.0.0.1:1", database=path))
    with pytest.raises(StoreError, match=r"model 3, the last one, cannot be trained: .* with --from-version 2"):
        asyncio.run(server.run(3))
    server.go_on_from(2)
    with pytest.raises(ConnectionError):  # only now it looks for a broker
        asyncio.run(server.run(4))
    assert (server.model == 2.0).all()
    server.store.close()
