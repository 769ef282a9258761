# SPDX-License-Identifier: Apache-2.0
"""Staged roll-outs and rollbacks of models: real C devices, the server's rounds and its database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fake_fleet import ELEMENTS, FakeFleet, new_store
from real_broker import Broker, Devices, federation, serve, until
from test_tasks import NETWORK, Hall, shares

from fedmote.cli.main import main
from fedmote.errors import StoreError, TaskError
from fedmote.rounds.record import Record
from fedmote.server.server import Server
from fedmote.store.store import Store
from fedmote.tasks.base import Result
from fedmote.tasks.evaluate import Evaluate
from fedmote.tasks.release import Release
from fedmote.tasks.requests import Request
from fedmote.tasks.rollback import RollBack
from fedmote.tasks.rollout import roll_out


def hall(new_model: Callable[[Any], Any], devices: int = 8) -> Hall:
    """Devices that hold model 1, and a model 2 that no device has yet."""
    there = Hall(shares(devices), min_cohort=2)
    there.rounds.store.commit(1, new_model(there.model).astype(np.float32), {})
    return there


def asked(there: Hall) -> tuple[Callable[[Request], Result], list[Request]]:
    requests: list[Request] = []

    def do(request: Request) -> Result:
        requests.append(request)
        return there.ask(request)

    return do, requests


def held(there: Hall) -> list[bool]:
    """For each device, whether its tensors hold model 2."""
    second = there.rounds.store.models.get(2)
    return [bool(np.array_equal(device.model, second)) for device in there.devices.values()]


def test_a_model_that_is_no_worse_reaches_all_a_share_after_the_other() -> None:
    there = hall(lambda model: 0.1 * model)  # the smaller random weights are, the less wrong
    do, requests = asked(there)
    holders: list[list[bool]] = []
    assert roll_out(do, 2, 1, (0.25, 0.5, 1.0), 0.02, lambda line: holders.append(held(there)))
    assert [sum(stage) for stage in holders] == [2, 4, 8]
    assert all(after >= before for before, after in zip(holders[0], holders[1], strict=True))  # the same ones and more
    assert requests[-1] == Release(2) and there.rounds.store.models.released == 2


def test_a_worse_model_is_taken_back_at_its_first_stage() -> None:
    """A worse model is taken back at its first stage. Its two devices get the former one again; no other had it."""
    there = hall(lambda model: 10 * model)
    do, requests = asked(there)
    assert not roll_out(do, 2, 1, (0.25, 1.0), 0.02)
    assert held(there) == [False] * 8 and there.rounds.store.models.released == 0
    assert [r.version for r in requests if isinstance(r, Evaluate)] == [1, 2, 1]
    assert sum(np.array_equal(device.model, there.model) for device in there.devices.values()) == 2


@pytest.mark.parametrize(("was", "loss", "reaches"), [
    (1.0, 1.01, True), (1.0, 1.03, False), (-1.0, -1.0, True), (-1.0, -0.99, True), (-1.0, -0.97, False),
    (0.0, 0.0, True), (1.0, float("inf"), False),
])  # fmt: skip
def test_the_tolerance_is_a_share_of_the_losses_size(was: float, loss: float, reaches: bool) -> None:
    """The tolerance works for losses below 0, such as a log-likelihood. An equally good model is not rejected."""
    said: list[str] = []

    def do(request: Request) -> Result:
        if not isinstance(request, Evaluate):
            return {}
        new = request.version == 2
        return {"devices": 10 + new, "examples": 99, "accuracy": {"mean": 0.5}, "loss": {"mean": loss if new else was}}

    assert roll_out(do, 2, 1, (1.0,), 0.02, said.append) is reaches
    assert "10 with 99 examples, then 11 with 99" in said[1]


def test_the_released_model_is_kept_however_old() -> None:
    store = Store(":memory:", NETWORK, np.zeros(NETWORK.elements, np.float32), keep=2)
    store.commit(1, np.ones(NETWORK.elements, np.float32), {})
    store.models.set_released(2)
    for number in range(2, 7):
        store.commit(number, np.full(NETWORK.elements, number, np.float32), {})
    assert np.array_equal(store.models.get(2), np.ones(NETWORK.elements, np.float32))
    for gone in (1, 3, 9):
        with pytest.raises(StoreError, match=f"no model {gone}"):
            store.models.set_released(gone)


def test_the_models_of_a_roll_out_outlive_the_training_that_goes_on_meanwhile() -> None:
    """Models of a roll-out are kept while each task lets a round through; else they would be deleted before the last
    stage.
    """
    there = hall(lambda model: 0.1 * model)
    store = there.rounds.store
    store.models.keep_newest = 2

    def do(request: Request) -> Result:
        result = there.ask(request)
        number = store.models.latest()[0]
        store.commit(number, np.full(NETWORK.elements, number, np.float32), {})
        return result

    assert roll_out(do, 2, 1, (0.25, 0.5, 0.75, 1.0), 0.02)
    assert store.models.released == 2 and store.models.get(2).any()
    with pytest.raises(StoreError, match="no model 1"):  # one is released; the former one is no longer needed
        store.models.get(1)
    with pytest.raises(TaskError, match="no model 3"):
        do(Evaluate(2, against=3))


@pytest.mark.parametrize("buffer", [0, 2])
def test_going_back_makes_an_earlier_model_the_next_and_voids_what_came_of_later_ones(buffer: int) -> None:
    """A rollback also voids the updates that a server might still wait for after a crash."""
    store = new_store()
    bench = FakeFleet(store=store, buffer=buffer, devices=2, max_staleness=4)
    bench.come("a", "b")
    for round, value in ((1, 1.0), (2, 2.0)):
        for device in "ab":
            bench.report(device, value, round=round)
        bench.tick(float(round))
        bench.tick(float(round))
    outcomes: list[Result | TaskError] = []
    bench.tasks.submit(RollBack(2), outcomes.append)
    bench.tick(3.0)
    assert outcomes == []  # devices are training: the rollback waits
    bench.report("a", 9.0, round=3)
    bench.report("b", 9.0, round=3)
    for second in range(4, 30):
        bench.tick(float(second))
    assert outcomes == [{"version": 5, "rolled_back_to": 2}]
    assert [r.rolled_back_to for r in bench.records] == [0, 0, 0, 2]
    assert np.array_equal(store.models.get(5), np.full(ELEMENTS, 1, np.float32))
    assert bench.rounds.number == 5 and bench.rounds.open_round("a") == 5
    assert bench.said.count(("all", "Commit")) == (4 if buffer == 0 else 1)
    assert store.assignments.open_since(1) == ([("a", 5), ("b", 5)] if buffer else [])
    bench.report("a", 7.0, round=5)
    bench.report("b", 7.0, round=5)
    bench.tick(30.0)
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 7, np.float32))


def test_going_back_voids_the_work_of_who_is_away() -> None:
    """With asynchronous rounds, a rollback voids the update of an offline device, which is told when it reconnects."""
    store = new_store()
    bench = FakeFleet(store=store, buffer=2, max_staleness=9, soft_deadline_s=10.0, hard_deadline_s=20.0)
    bench.come("a", "b", "away")
    bench.report("a", 1.0)
    bench.report("b", 1.0)
    bench.tasks.submit(RollBack(1), lambda outcome: None)
    bench.tick(1.0)
    assert [r.rolled_back_to for r in bench.records] == [0]  # until it is overdue, the server may wait for it
    bench.tick(25.0)
    assert [r.rolled_back_to for r in bench.records] == [0, 1]
    assert ("away", 1) not in store.assignments.open_since(0) and bench.rounds.open_round("away") == 3
    bench.report("away", 99.0)
    assert bench.rounds.receipts == {} and [name for to, name in bench.said if to == "away"][-1] == "Refusal"


def test_what_going_back_voids_is_durable_with_it() -> None:
    """After a crash right behind a rollback, the next server does not wait for updates of the voided models."""

    class Dies(Exception):
        pass

    def die(record: Record) -> None:
        if record.rolled_back_to:
            raise Dies

    store = new_store()
    bench = FakeFleet(store=store, buffer=2, max_staleness=9, soft_deadline_s=10.0, hard_deadline_s=20.0)
    bench.rounds.outlets = replace(bench.rounds.outlets, on_commit=die)
    bench.come("a", "b", "away")
    bench.report("a", 1.0)
    bench.report("b", 1.0)
    bench.tasks.submit(RollBack(1), lambda outcome: None)
    bench.tick(1.0)
    assert store.assignments.open_since(0) == [("away", 1)]
    with pytest.raises(Dies):
        bench.tick(25.0)
    assert store.assignments.open_since(0) == []


def test_going_back_to_a_model_that_is_not_kept_is_an_error() -> None:
    bench = FakeFleet(devices=2)
    outcomes: list[Result | TaskError] = []
    bench.tasks.submit(RollBack(7), outcomes.append)
    bench.tick(0.0)
    (outcome,) = outcomes
    assert isinstance(outcome, TaskError) and "no model 7" in str(outcome)
    assert bench.rounds.number == 1 and bench.records == []


def test_the_commands_on_a_server_that_runs(tmp_path: Path) -> None:
    """The commands models, rollback and rollout work on a running server, with a real broker and real devices."""
    broker = Broker(tmp_path)
    broker.start()
    settings = tmp_path / "f.toml"
    settings.write_text(
        f'[federation]\nname = "f"\n[mqtt]\nurl = "{broker.url}"\n'
        '[model]\ntensors = [{ name = "parameter0", shape = [100] }]\n'
    )
    server = Server(federation(broker.url, tmp_path, 3, 100))
    server.store.models.keep_newest = 10_000  # rounds without training are fast

    async def command(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, main, [*arguments])
        return result.exit_code, result.output

    async def operate() -> None:
        await until(lambda: server.rounds.number > 3)
        code, listed = await command("models", str(settings), "--json")
        assert code == 0 and [m["version"] for m in json.loads(listed)][:3] == [1, 2, 3]
        code, said = await command("rollback", str(settings), "--version", "2")
        assert code == 0 and "is model 2 again" in said
        code, said = await command("rollback", str(settings), "--version", "999")
        assert code == 1 and "no model 999" in said
        code, said = await command("rollout", str(settings), "--version", "999")
        assert code == 1 and "no model 999 is kept" in said
        code, said = await command("rollout", str(settings), "--version", "2", "--stage", "0.5")
        assert code == 2 and "the last one 1" in said
        server.rounds.done = True

    (tmp_path / "g.toml").write_text(settings.read_text().replace('"f"', '"g"'))
    assert "start the server first" in CliRunner().invoke(main, ["models", str(tmp_path / "g.toml")]).output
    with Devices(broker.url, 3, 100):
        asyncio.run(serve(server, 100_000, operate))
    broker.stop()
    with sqlite3.connect(tmp_path / "f.sqlite") as database:
        records = [json.loads(row[0]) for row in database.execute("SELECT record FROM round ORDER BY number")]
    assert [r["rolled_back_to"] for r in records if r["rolled_back_to"]] == [2]
