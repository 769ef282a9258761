# SPDX-License-Identifier: Apache-2.0
"""Devices that give nothing, or give it late: what they cost the others, and how rounds go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from fake_fleet import FakeFleet

from fedmote.rounds.grace import Grace
from fedmote.rounds.synchronous import State
from fedmote.wire import codec
from fedmote.wire.Plan import Plan

HONEST = ("a", "b", "c")


@cache
def rounds_of_30_s(attack: Callable[[FakeFleet, int], None] | None) -> int:
    """Return how many rounds 19 devices do in 30 s of virtual time, 40 ms a step. attack: what the 20th does."""
    names = [f"d{i}" for i in range(19)]
    fleet = FakeFleet(goal=0.8, devices=19, soft_deadline_s=60.0, hard_deadline_s=120.0)
    fleet.come(*names, *(["x"] if attack else []), examples=10)
    done = 0
    for step in range(30 * 25):
        fleet.tick(step * 0.04)
        number = fleet.rounds.number
        if number > done:  # the plan went out at this step or before
            done = number
        for device in sorted(fleet.sync.cohort.outstanding - {"x"}):
            fleet.report(device, 1.0, 10, round=number, delta=True)
        if attack is not None:
            attack(fleet, number)
    return len(fleet.records)


def silence(fleet: FakeFleet, number: int) -> None:
    pass


def begins_for_ever(fleet: FakeFleet, number: int) -> None:
    fleet.begin("x", float(np.random.default_rng(len(fleet.said)).random()), 10, round=number, delta=True)


def one_chunk(fleet: FakeFleet, number: int) -> None:
    fleet.begin("x", 1.0, 10, round=number, delta=True)
    fleet.chunks("x", 1.0, 0, round=number)


def wrong_checksum(fleet: FakeFleet, number: int) -> None:
    crc32 = fleet.begin("x", 1.0, 10, round=number, delta=True)
    fleet.chunks("x", 2.0, 0, 1, 2, round=number)
    fleet.hear("x", "UpdateEnd", round=number, chunks=3, crc32=crc32)


def withdraws(fleet: FakeFleet, number: int) -> None:
    fleet.hear("x", "Withdraw", round=number)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("attack", [silence, begins_for_ever, one_chunk, wrong_checksum, withdraws])
def test_one_device_of_twenty_costs_the_others_at_most_a_tenth_of_their_rounds(
    attack: Callable[[FakeFleet, int], None],
) -> None:
    assert rounds_of_30_s(attack) >= 0.9 * rounds_of_30_s(None) > 300


def test_grace_learns_from_two_devices_but_not_from_one() -> None:
    grace = Grace()
    assert (grace.seconds(0.01), grace.seconds(10.0)) == (0.5, 40.0)
    assert grace.ends_at(0.0, 1.0, 0.5) == 5.0
    assert grace.ends_at(0.0, 1.0, 4.0) == 8.0  # a chunk arrived
    assert grace.ends_at(0.0, 1.0, 16.0) == 17.0
    grace.note_late("liar", 1000.0)
    assert grace.seconds(1.0) == 4.0
    grace.note_late("slow", 20.0)
    assert grace.seconds(1.0) == 30.0
    for i in range(8):
        grace.note_late(f"d{i}", 1.0)
    assert grace.seconds(0.0) == 1.5


def test_a_device_that_comes_late_is_not_silent() -> None:
    """It offers its update when the round is over: grace grows, and it is not paused."""
    fleet = FakeFleet(goal=0.6, devices=5, soft_deadline_s=60.0, hard_deadline_s=120.0)
    fleet.come(*"abcde")
    for number in (1, 2):
        fleet.tick(fleet.now + 1.0)
        start = fleet.now
        for device in "abc":
            fleet.report(device, 1.0, round=number)
        fleet.tick(start + 1.0)
        late = fleet.sync.state
        if number == 2:
            assert late is State.CLOSING
            fleet.tick(start + 10.0)  # later than grace was in the first round
            assert fleet.sync.state is State.CLOSING and fleet.rounds.number == 2
            for device in "de":
                fleet.report(device, 1.0, round=number)
            fleet.tick(start + 10.0)
            assert fleet.records[-1].reported == 5
            return
        fleet.tick(start + 9.0)
        assert fleet.rounds.number == number + 1
        for device in "de":
            fleet.begin(device, 1.0, round=number)


@pytest.mark.parametrize("buffer", [0, 3])
def test_a_plan_that_nobody_answers_is_followed_by_another(buffer: int, caplog: pytest.LogCaptureFixture) -> None:
    """Devices ignore a plan that they have done, as after a database was restored. The next plan has another seed."""
    plans: list[Plan] = []

    class Recording(FakeFleet):
        def send(self, device: str, message: bytes) -> None:
            super().send(device, message)
            body = codec.decode(message)
            if isinstance(body, Plan) and device == "a":
                plans.append(body)

    fleet = Recording(devices=3, buffer=buffer, soft_deadline_s=5.0, hard_deadline_s=10.0)
    fleet.come(*HONEST)
    for second in range(24 if buffer else 14):
        fleet.tick(float(second))
    assert len(plans) > 1 and {plan.Round() for plan in plans} == {1}
    assert len({plan.Seed() for plan in plans}) == len(plans)
    assert "round 1: no device answered the plan; the next plan is a new one" in caplog.text
    for device in HONEST:
        fleet.report(device, 1.0)
    fleet.tick(fleet.now + 1.0)
    assert [record.reported for record in fleet.records] == [3]
