# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every kind of task is asked of the same fleet, by real devices and by hand.
"""Tasks evaluate and query: real C devices and the server's rounds, messages passed by hand, no clock but the test's.

A lying device is played by the test.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_fleet import CHUNK, ELEMENTS, LAYOUT, FakeFleet, new_store
from numpy.typing import NDArray

from fedmote.errors import TaskError
from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.model.initial import glorot
from fedmote.model.layout import Layout, Tensor, dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.server.federation import Federation
from fedmote.server.requests import OperatorRequests
from fedmote.server.server import Server
from fedmote.store.store import Store
from fedmote.tasks import requests
from fedmote.tasks.base import Result, TaskLimits
from fedmote.tasks.evaluate import Evaluate
from fedmote.tasks.heavy_hitters import HeavyHitters
from fedmote.tasks.histogram import Histogram
from fedmote.tasks.quantiles import Quantiles
from fedmote.tasks.requests import Request
from fedmote.tasks.rollback import RollBack
from fedmote.tasks.runner import TaskRunner
from fedmote.wire import codec
from fedmote.wire.Plan import Plan
from fedmote.wire.Receipt import Receipt
from fedmote_device import CTrainer, Device

Outcome = Result | TaskError
CLASSES = 200
WIDTHS = (3, CLASSES)
NETWORK = Layout((Tensor("dense0.kernel", (3, CLASSES)), Tensor("dense0.bias", (CLASSES,))))


class Hall:
    """Devices and the server of one federation in one room; training never begins."""

    def __init__(self, shares: list[tuple[NDArray[np.float32], NDArray[np.int64]]], **limits: Any) -> None:
        self.now = 0.0
        self.inboxes: dict[str, list[bytes]] = {}
        self.model = np.random.default_rng(3).normal(size=NETWORK.elements).astype(np.float32)
        self.fleet = Fleet(NETWORK)
        policy = Policy(devices=1000, chunk_elements=100)
        setup = RoundSetup(FedAvg(), Training(batch_size=16), policy)
        outlets = Outlets(lambda message: None, lambda version, chunks: None)
        bounds = TaskLimits(**({"min_cohort": 3, "answer_s": 1e6} | limits))
        store = Store(":memory:", NETWORK, self.model)
        self.rounds, self.tasks = start_rounds(self.fleet, store, setup, outlets, bounds)
        self.devices = {
            f"d{i}": Device(f"d{i}", "memory:", federation="t", trainer=CTrainer(WIDTHS, x, y), seed=i + 1)
            for i, (x, y) in enumerate(shares)
        }
        self.run(lambda: len(self.fleet.sessions.ready()) == len(shares))

    def send(self, device: str, message: bytes) -> None:
        self.inboxes.setdefault(device, []).append(message)

    def pump(self) -> None:
        for name, device in self.devices.items():
            milliseconds = int(1000 * self.now)
            if device.wanted is not None and (chunk := self.rounds.model_chunk(*device.wanted)) is not None:
                device.deliver(chunk, milliseconds)
            elif inbox := self.inboxes.get(name):
                device.deliver(inbox.pop(0), milliseconds)
            else:
                device.poll(milliseconds)
            if (message := device.take()) is not None:
                self.fleet.receive(name, message, self.now, self.send)
        self.rounds.tick(self.now)

    def run(self, until: Callable[[], bool]) -> None:
        for _ in range(20_000):
            if until():
                return
            self.now += 0.01
            self.pump()
        raise AssertionError(f"not done; devices are {[d.state for d in self.devices.values()]}")

    def ask(self, request: Request) -> Result:
        outcomes: list[Outcome] = []
        self.tasks.submit(request, outcomes.append)
        self.run(lambda: bool(outcomes))
        (outcome,) = outcomes
        if isinstance(outcome, TaskError):
            raise outcome
        return outcome


def shares(count: int, examples: int = 60, seed: int = 1) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return each device's features and labels: a quarter of all labels are 17, a fifth are 150."""
    draw = np.random.default_rng(seed)
    out = []
    for i in range(count):
        size = examples + 5 * i
        labels = draw.choice([17, 150, -1], size=size, p=[0.25, 0.2, 0.55])
        labels = np.where(labels < 0, draw.integers(0, CLASSES, size), labels)
        out.append((draw.normal(size=(size, 3)).astype(np.float32), labels))
    return out


def together(data: list[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.concatenate([x for x, _ in data]), np.concatenate([y for _, y in data])


# ---- what comes back is exact


def test_an_evaluation_is_the_weighted_mean_over_devices_and_its_spread() -> None:
    data = shares(5)
    hall = Hall(data)
    result = hall.ask(Evaluate())
    kernel, bias = hall.model[: 3 * CLASSES].reshape(3, CLASSES).astype(float), hall.model[3 * CLASSES :].astype(float)
    losses, accuracies = [], []
    for x, y in data:
        logits = x @ kernel + bias
        losses.append(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))
        accuracies.append(np.mean(logits.argmax(axis=1) == y))
    weights = [len(y) for _, y in data]
    assert (result["devices"], result["examples"], result["version"]) == (5, sum(weights), 1)
    for name, values in (("loss", losses), ("accuracy", accuracies)):
        mean = np.average(values, weights=weights)
        assert result[name]["mean"] == pytest.approx(mean, rel=1e-5)
        deviation = np.sqrt(np.average((np.array(values) - mean) ** 2, weights=weights))
        assert result[name]["deviation"] == pytest.approx(deviation, rel=1e-4, abs=1e-6)
        assert set(result[name]) == {"mean", "deviation", "quarters"} and result[name]["quarters"] is None


def test_quarters_are_told_when_each_is_of_a_least_cohort() -> None:
    """No figure of an evaluation is of a single device."""
    for devices, told in ((11, False), (12, True), (14, True)):
        room = Room(*(f"d{i:02}" for i in range(devices)))
        room.ask(Evaluate())
        losses = [(7.0 * i) % devices for i in range(devices)]
        for i, loss in enumerate(losses):
            room.evaluation(f"d{i:02}", loss=loss, correct=5)
        assert isinstance(room.outcome, dict)
        means = [np.mean(part) for part in np.array_split(np.sort(losses), 4)]
        assert room.outcome["loss"]["quarters"] == (pytest.approx(means) if told else None)


def test_a_model_that_is_kept_is_evaluated_and_one_that_is_not_is_an_error() -> None:
    hall = Hall(shares(3))
    older = np.zeros(NETWORK.elements, np.float32)
    hall.rounds.store.commit(1, older, {})
    result = hall.ask(Evaluate(version=2))
    assert result["version"] == 2
    assert result["loss"]["mean"] == pytest.approx(np.log(CLASSES), rel=1e-5)
    with pytest.raises(TaskError, match="no model 7"):
        hall.ask(Evaluate(version=7))
    assert hall.ask(Evaluate())["version"] == 1  # and tasks go on


def test_a_histogram_counts_every_value_once() -> None:
    data = shares(4)
    _, y = together(data)
    result = Hall(data).ask(Histogram("label", 0, 200, 10))
    assert result["counts"] == np.histogram(y, 10, (0, 200))[0].tolist()
    assert (result["count"], result["sum"], result["devices"]) == (len(y), y.sum(), 4)
    assert result["mean"] == pytest.approx(y.mean())
    assert result["edges"] == [20.0 * i for i in range(11)]


def test_quantiles_are_within_a_bins_width() -> None:
    data = shares(4)
    x, _ = together(data)
    asked = Quantiles("feature1", -4, 4, (0.05, 0.5, 0.9), tolerance=0.001)
    result = Hall(data).ask(asked)
    true = np.quantile(x[:, 1], asked.shares, method="inverted_cdf")
    np.testing.assert_allclose(list(result["quantiles"].values()), true, atol=0.001)
    assert list(result["quantiles"]) == ["0.05", "0.5", "0.9"]


def test_a_share_that_is_met_exactly_is_met() -> None:
    """0.55 * 100 is above 55 in floating point, and what devices add that are scaled down is rounded."""
    data = [(np.zeros((20, 3), np.float32), np.repeat([5, 60], [11, 9])) for _ in range(5)]
    assert Hall(data).ask(Quantiles("label", 0, 200, (0.55,)))["quantiles"]["0.55"] == pytest.approx(5, abs=0.2)
    assert Hall(data).ask(HeavyHitters("label", 0, 200, share=0.55))["codes"] == {"5": 0.55}
    halves = [(np.zeros((60, 3), np.float32), np.repeat([5, 60], 30)) for _ in range(3)]
    found = Hall(halves, max_per_device=7).ask(HeavyHitters("label", 0, 200, share=0.5))["codes"]
    assert found == pytest.approx({"5": 0.5, "60": 0.5})


def test_a_quantile_out_of_range_is_told_as_its_end() -> None:
    result = Hall(shares(3)).ask(Quantiles("feature0", 50, 60, (0.5,)))
    assert result["quantiles"] == {"0.5": 50}


def test_heavy_hitters_are_found_and_nothing_else() -> None:
    data = shares(5)
    _, y = together(data)
    result = Hall(data).ask(HeavyHitters("label", 0, 100_000, share=0.1))
    codes, counts = np.unique(y, return_counts=True)
    true = {str(code): count / len(y) for code, count in zip(codes, counts, strict=True) if count >= 0.1 * len(y)}
    assert set(true) == {"17", "150"}
    assert result["codes"] == pytest.approx(true)


def test_a_code_that_few_devices_have_is_not_told() -> None:
    """It is not released however many values they have: if codes are names, it would say who they are."""
    codes = [[17, 150], [17, 150], [17, 150], [17, 42], [17, 42]]
    data = [(np.zeros((60, 3), np.float32), np.repeat(pair, 30)) for pair in codes]
    assert Hall(data).ask(HeavyHitters("label", 0, 100_000, share=0.05))["codes"] == {"17": 0.5, "150": 0.3}
    assert Hall(data, min_cohort=4).ask(HeavyHitters("label", 0, 100_000, share=0.05))["codes"] == {"17": 0.5}


def test_no_code_lies_at_an_edge_between_bins() -> None:
    query = next(HeavyHitters("x", -7, 1000).steps())
    edges = query.low + (query.high - query.low) / query.bins * np.arange(query.bins + 1)
    assert set(edges % 1) == {0.5}


def test_a_device_adds_at_most_its_bound() -> None:
    data = [*shares(3, examples=50), (np.zeros((5000, 3), np.float32), np.full(5000, 3))]
    result = Hall(data, max_per_device=40).ask(Histogram("label", 0, 200, 20))
    assert result["count"] == pytest.approx(4 * 40)
    expected = np.zeros(20)
    for _, y in data:
        expected += np.histogram(y, 20, (0, 200))[0] * (40 / len(y))
    assert result["counts"] == pytest.approx(expected.tolist())
    assert result["sum"] == pytest.approx(sum(40 * y.mean() for _, y in data))


def test_a_cohort_of_so_many_is_asked() -> None:
    hall = Hall(shares(7))
    assert hall.ask(Histogram("label", 0, 200, 4, cohort=4))["devices"] == 4


def test_no_two_cohorts_differ_by_fewer_devices_than_make_one() -> None:
    """Otherwise the difference of two results would be the answer of one device."""
    hall = Hall(shares(11))
    drawn = [hall.ask(Histogram("label", 0, 200, 4, cohort=n))["devices"] for n in range(3, 12)]
    assert drawn == [3, 4, 5, 6, 7, 8, 11, 11, 11]
    nested = [hall.ask(Evaluate(cohort=n, order=5))["devices"] for n in range(3, 12)]
    assert nested == [3, 6, 6, 6, 11, 11, 11, 11, 11]
    assert hall.ask(Evaluate(share=0.1, order=5))["devices"] == 3
    assert hall.ask(Evaluate(share=0.3, order=5))["devices"] == 6


# ---- nothing is released of too few


def test_too_few_devices_are_not_even_asked() -> None:
    hall = Hall(shares(2), wait_s=5.0)
    with pytest.raises(TaskError, match="2 devices were free, 3 are needed"):
        hall.ask(Histogram("label", 0, 200, 4))
    assert [device.round for device in hall.devices.values()] == [0, 0]


def test_too_few_answers_release_nothing() -> None:
    hall = Hall(shares(3))
    with pytest.raises(TaskError, match="0 of 3 devices gave a result; with fewer than 3"):
        hall.ask(Histogram("feature9", 0, 1, 4))  # no device has it: all withdraw
    assert all(device.counters["withdrawals"] == 1 for device in hall.devices.values())


def test_a_device_that_is_away_is_not_waited_for_for_ever() -> None:
    hall = Hall(shares(4), answer_s=20.0)
    hall.devices["d3"].cut_link()
    assert hall.ask(Histogram("label", 0, 200, 4))["devices"] == 3


# ---- by hand


class Room(FakeFleet):
    """A fake fleet whose tasks draw the seeds 1, 2, 3 and so on, and whose devices may lie."""

    def __init__(self, *devices: str, seed: int = 0, store: Store | None = None, **policy: Any) -> None:
        super().__init__(store=store, **({"devices": 1000} | policy))
        self.plans: dict[str, Any] = {}
        drawn = iter(range(seed + 1, 10_000))
        self.tasks = TaskRunner(self.fleet, TaskLimits(min_cohort=3, answer_s=30.0), lambda: next(drawn))
        self.rounds.tasks = self.tasks
        self.outcomes: list[Outcome] = []
        self.come(*devices)

    def send(self, device: str, message: bytes) -> None:
        super().send(device, message)
        body = codec.decode(message)
        if isinstance(body, Plan):
            self.plans[device] = body
        if isinstance(body, Receipt):
            self.receipt = body

    def ask(self, request: Request) -> None:
        self.tasks.submit(request, self.outcomes.append)
        self.tick(self.now)

    def answer(self, device: str, **fields: Any) -> None:
        plan = self.plans[device]
        said = {"round": plan.Round(), "seed": plan.Seed(), "count": 4, "sum": 6.0, "counts": [1, 3]} | fields
        self.hear(device, "Answer", **said)
        self.tick(self.now)

    def evaluation(self, device: str, **fields: Any) -> None:
        plan = self.plans[device]
        said = {
            "round": plan.Round(),
            "seed": plan.Seed(),
            "model_version": plan.ModelVersion(),
            "examples": 10,
        } | fields
        self.hear(device, "Evaluation", **said)
        self.tick(self.now)

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self.outcomes
        return outcome


TWO_BINS = Histogram("label", 0, 2, 2)


def test_the_plan_of_a_query() -> None:
    room = Room("a", "b", "c")
    room.ask(TWO_BINS)
    plan = room.plans["a"]
    assert plan.QueryField() == zlib.crc32(b"label")
    assert (plan.QueryLow(), plan.QueryHigh(), plan.QueryBins(), plan.Task()) == (0, 2, 2, 2)
    assert (plan.ModelElements(), plan.ModelChunkElements()) == (ELEMENTS, CHUNK)  # which a device checks


@pytest.mark.parametrize(("lie", "why"), [
    ({"count": 5}, "counts do not match each other"), ({"counts": [1, 2]}, "counts do not match each other"),
    ({"counts": [4]}, "counts do not match each other"), ({"counts": [1, 2, 1]}, "counts do not match each other"),
    ({"counts": []}, "counts do not match each other"), ({"sum": float("nan")}, "sum out of range"),
    ({"sum": float("inf")}, "sum out of range"), ({"sum": 9.0}, "sum out of range"),
    ({"sum": -1.0}, "sum out of range"),
    ({"count": 0, "counts": [0, 0], "sum": 0.0}, "no values"),
], ids=str)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_not_counted_and_the_others_are(lie: dict[str, Any], why: str) -> None:
    room = Room("a", "b", "c", "liar")
    room.ask(TWO_BINS)
    room.answer("liar", **lie)
    for device in "abc":
        room.answer(device)
    assert room.outcome == {
        "devices": 3, "count": 12, "sum": 18, "mean": 1.5, "counts": [3, 9], "edges": [0, 1, 2],
        "participation": {"asked": 4, "answered": 3, "withdrew": 0, "silent": 0, "refused": {why: 1}},
    }  # fmt: skip
    assert room.fleet.counters["refused_results"] == 1


@pytest.mark.parametrize(("lie", "why"), [
    ({"examples": 0}, "no examples"), ({"correct": 11}, "more correct than examples"),
    ({"loss": float("nan")}, "loss not finite"), ({"model_version": 9}, "of another model"),
], ids=str)  # fmt: skip
def test_an_evaluation_that_makes_no_sense_is_not_counted_and_the_others_are(lie: dict[str, Any], why: str) -> None:
    room = Room("a", "b", "c", "liar", "gone", "silent")
    room.ask(Evaluate())
    room.evaluation("liar", **lie)
    room.hear("gone", "Withdraw", round=1)
    for i, device in enumerate("abc"):
        room.evaluation(device, loss=1.0 + i, correct=5)
    room.tick(1000.0)
    assert isinstance(room.outcome, dict)
    assert (room.outcome["devices"], room.outcome["examples"], room.outcome["loss"]["mean"]) == (3, 30, 2.0)
    assert room.outcome["participation"] == {
        "asked": 6, "answered": 3, "withdrew": 1, "silent": 1, "refused": {why: 1}
    }  # fmt: skip


def test_a_device_with_very_many_examples_takes_part() -> None:
    """Its examples count for as many as one device may add."""
    room = Room("a", "b", "c")
    room.ask(Evaluate())
    room.evaluation("a", examples=2_000_000, correct=1_000_000)
    for device in "bc":
        room.evaluation(device)
    assert isinstance(room.outcome, dict)
    assert room.outcome["examples"] == 1000 + 10 + 10


def test_a_device_counts_once_and_every_result_gets_its_receipt() -> None:
    room = Room("a", "b", "c")
    room.ask(TWO_BINS)
    for device in "aaabbc":
        room.answer(device)
        assert (room.receipt.Round(), room.receipt.Crc32()) == (1, room.plans[device].Seed())
    assert isinstance(room.outcome, dict)
    assert room.outcome["count"] == 12
    room.answer("a")  # late: the device is free all the same
    assert room.said[-1] == ("a", "Receipt")


def test_what_answers_another_task_is_not_counted() -> None:
    room = Room("a", "b", "c")
    room.ask(TWO_BINS)
    room.answer("a", seed=12345)
    room.evaluation("a")
    assert room.fleet.counters["unexpected"] == 2
    room.hear("stranger", "Answer", round=1, seed=room.plans["a"].Seed(), count=1, sum=1.0, counts=[0, 1])
    for device in "bc":
        room.answer(device)
    assert room.outcomes == []
    room.tick(31.0)
    assert str(room.outcome).startswith("2 of 3 devices gave a result; with fewer than 3")


def test_a_plan_that_was_lost_comes_again_with_hello() -> None:
    room = Room("a", "b", "c")
    room.ask(TWO_BINS)
    first = room.plans.pop("a")
    room.come("a")
    assert room.plans["a"].Seed() == first.Seed()
    room.answer("a")
    del room.plans["a"]
    room.come("a")
    assert "a" not in room.plans  # it has answered


def test_training_waits_for_the_task_and_goes_on_after_it() -> None:
    room = Room("a", "b", devices=3)
    room.tasks.submit(TWO_BINS, room.outcomes.append)
    room.come("c")
    assert [plan.Task() for plan in room.plans.values()] == [2, 2, 2]
    room.tick(1.0)
    assert [plan.Task() for plan in room.plans.values()] == [2, 2, 2]
    for device in "abc":
        room.answer(device)
    assert len(room.outcomes) == 1
    room.tick(2.0)
    assert [(plan.Task(), plan.Round()) for plan in room.plans.values()] == [(0, 1)] * 3
    room.ask(TWO_BINS)
    room.tick(3.0)
    assert [plan.Task() for plan in room.plans.values()] == [0, 0, 0]  # not within a round
    for device in "abc":
        room.report(device, 1.0)
    room.tick(4.0)
    room.tick(5.0)
    assert [(plan.Task(), plan.Round()) for plan in room.plans.values()] == [(2, 2)] * 3


def test_a_device_that_holds_an_update_is_not_asked() -> None:
    room = Room("a", "b", "c", "d", devices=4, min_reports=3, goal=1.0)
    room.tick(1.0)
    room.report("a", 1.0)
    room.tick(21.0)  # too few: the round is opened again, and a keeps its update
    room.tasks.limits = TaskLimits(min_cohort=1)
    room.plans.clear()
    for device in "bcd":
        room.hear(device, "DeviceState", online=False)
    room.ask(TWO_BINS)
    assert room.plans == {}


def test_after_a_restart_the_task_is_another_and_old_results_do_not_count() -> None:
    store = new_store()
    before = Room("a", "b", "c", store=store)
    before.ask(TWO_BINS)
    before.answer("a")
    old = before.plans["b"].Seed()
    after = Room("a", "b", "c", seed=100, store=store)
    after.ask(TWO_BINS)
    after.answer("b", seed=old, counts=[4, 0], sum=0.0)
    assert after.receipt.Crc32() == old
    for device in "abc":
        after.answer(device)
    assert isinstance(after.outcome, dict)
    assert after.outcome["counts"] == [3, 9]


def test_devices_that_know_no_seed_can_evaluate() -> None:
    """Devices of 0.1.0 send no seed. Round and model name their plan; a result of another model is not taken."""
    bench = FakeFleet(devices=9)
    bench.tasks.limits = TaskLimits(min_cohort=2)
    outcomes: list[Outcome] = []
    bench.tasks.submit(Evaluate(), outcomes.append)
    bench.come("a", "b")
    bench.hear("a", "Evaluation", round=1, model_version=2, examples=10, correct=9, loss=9.0)
    bench.hear("a", "Evaluation", round=1, model_version=1, examples=10, correct=5, loss=1.0)
    bench.hear("b", "Evaluation", round=1, model_version=1, examples=10, correct=5, loss=1.0)
    bench.tick(1.0)
    (outcome,) = outcomes
    assert isinstance(outcome, dict) and outcome["devices"] == 2 and outcome["loss"]["mean"] == 1.0


def test_after_a_restart_a_task_waits_for_those_at_work() -> None:
    """A device that trains for the dead server would drop its work for a task's plan: the open round comes first."""
    store = new_store()
    FakeFleet(store=store).come("a", "b")
    bench = FakeFleet(store=store, resume_s=3.0)
    bench.tasks.limits = TaskLimits(min_cohort=2)
    bench.tasks.submit(Evaluate(), lambda result: None)
    bench.come("a", "b")
    bench.tick(3.0)
    assert bench.tasks.running is None and bench.sync.cohort.selected == ["a", "b"]
    bench.report("a", 1.0)
    bench.report("b", 1.0)
    bench.tick(4.0)
    bench.tick(5.0)
    assert bench.rounds.number == 2 and bench.tasks.running is not None


def test_after_a_restart_a_task_waits_for_a_deadline_at_most() -> None:
    """Fewer devices are online than a round needs. Those that were asked are done by then, or never will be."""
    store = new_store()
    FakeFleet(store=store).come("a", "b")
    bench = FakeFleet(store=store, resume_s=3.0, devices=3)
    bench.tasks.limits = TaskLimits(min_cohort=2)
    bench.tasks.submit(Evaluate(), lambda result: None)
    bench.come("a", "b")
    bench.tick(22.9)
    assert bench.tasks.running is None
    bench.tick(23.0)
    assert bench.tasks.running is not None


def test_with_asynchronous_rounds_a_task_waits_for_those_at_work() -> None:
    room = Room("a", "b", "c", devices=1, buffer=2)
    assert [plan.Task() for plan in room.plans.values()] == [0, 0, 0]
    room.ask(TWO_BINS)
    room.report("a", 1.0)
    room.tick(1.0)
    assert room.plans["a"].Task() == 0
    room.report("b", 1.0)
    room.tick(2.0)
    room.report("c", 1.0)
    room.tick(3.0)
    room.tick(4.0)
    assert len(room.records) == 2  # both are committed: nobody has anything in hand
    assert [plan.Task() for plan in room.plans.values()] == [2, 2, 2]
    for device in "abc":
        room.answer(device)
    assert isinstance(room.outcome, dict)
    room.tick(5.0)
    assert [plan.Task() for plan in room.plans.values()] == [0, 0, 0]


def test_with_asynchronous_rounds_a_device_keeps_its_update_until_the_commit() -> None:
    room = Room("a", "b", devices=1, buffer=2)
    room.tasks.limits = TaskLimits(min_cohort=1)
    room.ask(TWO_BINS)
    room.report("a", 1.0)
    room.tick(1.0)
    assert room.plans["a"].Task() == 0  # the plan of a task would have it drop the update
    room.report("b", 1.0)
    room.tick(2.0)
    room.tick(3.0)
    assert (len(room.records), room.plans["a"].Task()) == (1, 2)


def test_with_asynchronous_rounds_training_does_not_wait_for_a_task_that_cannot_begin() -> None:
    """Its cohort lacks a device that is overdue, and may be for hours."""
    room = Room("a", "b", "c", devices=1, buffer=2)
    room.tick(21.0)  # past the hard deadline: all are overdue
    for device in "bc":
        room.report(device, 1.0)
    room.ask(TWO_BINS)  # wants all three
    room.tick(22.0)
    assert (len(room.records), room.plans["b"].Round(), room.plans["c"].Round(), room.outcomes) == (1, 2, 2, [])
    room.report("a", 1.0)  # in time after all
    for device in "bc":
        room.report(device, 1.0, round=2)
    room.tick(23.0)
    room.tick(24.0)
    assert [plan.Task() for plan in room.plans.values()] == [2, 2, 2]


def test_with_asynchronous_rounds_training_does_not_wait_for_devices_that_hold_the_whole_model() -> None:
    """An evaluation needs three devices, and two of the three that are online hold a slice."""
    layout = dense((3, 8, 200), (1.0, 0.5))
    policy = Policy(devices=1, chunk_elements=100, buffer=2)
    fleet = Fleet(layout)
    setup, outlets = (
        RoundSetup(FedAvg(), Training(), policy),
        Outlets(lambda message: None, lambda version, chunks: None),
    )
    store = Store(":memory:", layout, glorot(layout, 1))
    rounds, tasks = start_rounds(fleet, store, setup, outlets, TaskLimits(min_cohort=3))
    tasks.submit(Evaluate(), lambda outcome: None)
    for device, size in (("a", 0), ("b", 1), ("c", 1)):
        one = layout.classes()[size]
        hello = codec.encode("Hello", device_id=device, elements=one.elements, layout_crc32=one.crc32)
        fleet.receive(device, hello, 0.0, lambda device, message: None)
    rounds.tick(0.0)
    assert all(rounds.assignment(device) is not None for device in "abc")


def test_a_server_that_stops_says_so() -> None:
    room = Room("a", "b", "c")
    room.ask(TWO_BINS)
    room.ask(Evaluate())
    room.tasks.stop()
    assert [str(outcome) for outcome in room.outcomes] == ["the server stopped; ask again when it runs"] * 2


# ---- requests


@pytest.mark.parametrize("request_", [
    Evaluate(3, 20), TWO_BINS, Quantiles("x", 0, 1, (0.1, 0.9), 0.01), HeavyHitters("y", -5, 9, 0.2, 7),
], ids=lambda r: type(r).__name__)  # fmt: skip
def test_requests_are_the_same_after_a_way_through_the_database(request_: Request) -> None:
    assert requests.from_json(requests.to_json(request_)) == request_


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"kind": "Path"}', '{"kind": "Evaluate", "folder": "/"}', "1",
    pytest.param("[" * 100_000, id="deep"),
])  # fmt: skip
def test_what_is_no_request_is_an_error(text: str) -> None:
    with pytest.raises(TaskError, match="not a request"):
        requests.from_json(text)


@pytest.mark.parametrize(("fields", "complaint"), [
    ({"kind": "Evaluate", "version": 1 << 70}, "a whole number below"),
    ({"kind": "RollBack", "version": 1 << 70}, "a whole number below"),
    ({"kind": "Release", "version": 1.5}, "a whole number below"),
    ({"kind": "Evaluate", "cohort": "5"}, "a whole number below"),
    ({"kind": "Evaluate", "cohort": -5}, "0 or more"),
    ({"kind": "Histogram", "field": 5, "low": 0, "high": 1}, "printable"),
    ({"kind": "Histogram", "field": "\ud800", "low": 0, "high": 1}, "printable"),
    ({"kind": "Histogram", "field": "x", "low": 0, "high": 1, "bins": 2.5}, "a whole number below"),
    ({"kind": "HeavyHitters", "field": "x", "low": 0.5, "high": 9.5}, "a whole number below"),
    ({"kind": "HeavyHitters", "field": "x", "low": 0, "high": 9, "share": True}, "a number"),
])  # fmt: skip
def test_a_request_of_the_wrong_types_ends_here_not_in_the_rounds(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        requests.from_json(json.dumps(fields))


@pytest.mark.parametrize(("make", "complaint"), [
    (lambda: Histogram("x", 1, 1, 4), "the lower first"),
    (lambda: Histogram("x", -1e300, 1e300, 4), "at most 1e.38"),
    (lambda: Quantiles("x", -3.4e38, 3.4e38), "at most 1e.38"),
    (lambda: Quantiles("x", 0, 10**400), "at most 1e.38"),
    (lambda: Histogram("x", 0, float("inf"), 4), "the lower first"),
    (lambda: Histogram("x", 0, 1, 33), "1 to 32"),
    (lambda: Quantiles("x", 0, 1, ()), "1 to 20"),
    (lambda: Quantiles("x", 0, 1, (1.0,)), "between 0 and 1"),
    (lambda: Quantiles("x", 0, 1, (0.5,), 1e-9), "at least 1e-05"),
    (lambda: Quantiles("x", 1e6, 1e6 + 1), "0.001: it must be at least 0.125"),  # float32 has sixteen values there
    (lambda: HeavyHitters("x", 5, 5), "they must ascend"),
    (lambda: HeavyHitters("x", 0, 1 << 23), "be at most"),
    (lambda: HeavyHitters("x", 0, 9, 0.001), "between 0.02 and 1"),
])  # fmt: skip
def test_what_cannot_be_found_is_refused(make: Callable[[], Request], complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        make()


# ---- beside asynchronous rounds


def test_devices_that_do_not_answer_their_plan_do_not_hold_up_training_for_a_task() -> None:
    bench = FakeFleet(buffer=2, hard_deadline_s=20.0)
    names = [f"d{i:02}" for i in range(12)]
    bench.come(*names)
    outcomes: list[Outcome] = []
    bench.tasks.submit(Evaluate(), outcomes.append)  # of at least 10
    for name in names[:9]:
        bench.report(name, 1.0)
    bench.tick(1.0)
    assert bench.rounds.number == 2
    assert not bench.buffered.open_work.by_device.keys() & set(names[:9])  # the task would have enough
    bench.tick(25.0)
    assert set(names[:9]) <= bench.buffered.open_work.by_device.keys()
    assert outcomes == []


def test_a_task_that_never_has_enough_devices_is_given_up_also_while_somebody_is_always_at_work() -> None:
    bench = FakeFleet(buffer=1, hard_deadline_s=20.0)
    bench.come("a", "b")
    outcomes: list[Outcome] = []
    bench.tasks.submit(Evaluate(), outcomes.append)
    rounds = {"a": 1, "b": 1}
    for step in range(400):  # the one asks while the other is at work
        device = "ab"[step % 2]
        bench.now = 10.0 * step
        bench.report(device, 1.0, round=rounds[device])
        bench.tick(bench.now)
        rounds[device] = bench.rounds.number
        assert bench.buffered.open_work.by_device
    assert "not begun within 3600 s" in str(outcomes[0])


# ---- through the database


def test_requests_are_taken_up_a_few_at_a_time_and_dropped_when_nobody_waits(tmp_path: Path) -> None:
    """Each request that is refused costs a commit. A roll-back whose operator has gone is not done."""
    server = Server(Federation("f", LAYOUT, "mqtt://127.0.0.1", database=tmp_path / "f.sqlite"))
    bench = FakeFleet(store=server.store)
    tasks = bench.tasks
    operators = OperatorRequests(server.store.requests, tasks)
    with contextlib.closing(sqlite3.connect(tmp_path / "f.sqlite", isolation_level=None)) as db:
        request = requests.to_json(RollBack(1))
        db.executemany("INSERT INTO task (request) VALUES (?)", [("nonsense",), *[(request,)] * 100])
        operators.poll(1.0)
        assert len(tasks.queue) == 49
        assert db.execute("SELECT count(*) FROM task WHERE result IS NOT NULL").fetchone() == (1,)
        db.execute("DELETE FROM task WHERE id > 2")
        operators.poll(3.0)
        assert len(tasks.queue) == 1
        assert len(operators._queued) == 1
        db.execute("DELETE FROM task")
        operators.poll(5.0)
        assert not tasks.queue
    bench.come("a")
    bench.report("a", 1.0)
    bench.tick(6.0)
    assert [record.rolled_back_to for record in bench.records] == [0]
    server.store.close()
