# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: deadlines, arrivals and their effect in rounds are judged on the same bench.
"""Deadlines follow the fleet within their bounds. Small fleets meet at the same time, large ones come evenly."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_fleet import ELEMENTS, LAYOUT, FakeFleet, new_store
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmote.demo.simulated_digits import PRESET_POLICY, PRESET_TRAINING, simulate_digits
from fedmote.errors import StoreUnavailableError
from fedmote.fleet.pace import MOST_AWAY_S, Arrivals, Pace, next_meeting
from fedmote.fleet.selection import CHARGING, Selection
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.rounds.deadlines import SHRINKS, Deadline, Deadlines
from fedmote.rounds.policy import Policy
from fedmote.rounds.record import Record
from fedmote.rounds.synchronous import State
from fedmote.simulation.settings import FleetSettings
from fedmote.simulation.simulation import ServerSettings
from fedmote.store.store import Store
from fedmote.wire import codec

BOUNDS = Deadline(600.0, 900.0)


def play(deadlines: Deadlines, times: NDArray[np.float64], goal: float) -> tuple[float, bool]:
    """Run a round of devices with these times; return its soft deadline and whether it met the goal."""
    soft_s = deadlines.present.soft_s
    wanted = math.ceil(goal * times.size)
    closes = min(soft_s, float(np.sort(times)[wanted - 1]))
    done = times[times <= closes]
    deadlines.learn(done.tolist(), times.size - done.size)
    return soft_s, done.size >= wanted


@given(
    st.lists(st.tuples(st.lists(st.floats(0, 1e6), max_size=20), st.integers(0, 20)), max_size=30),
    st.floats(0.1, 700.0), st.floats(0, 1),
)  # fmt: skip
def test_bounds_hold_whatever_comes(
    rounds: list[tuple[list[float], int]], least_s: float, goal: float
) -> None:  # fmt: skip
    """The deadline stays within its bounds, soft to hard keep their ratio, and it never falls by more than a fifth."""
    deadlines = Deadlines(BOUNDS, least_s, goal)
    for done, not_done in rounds:
        before = deadlines.present.soft_s
        deadlines.learn(done, not_done)
        soft_s, hard_s = deadlines.present
        assert min(least_s, BOUNDS.soft_s) <= soft_s <= BOUNDS.soft_s
        assert soft_s >= SHRINKS * before * (1 - 1e-12)
        assert math.isclose(hard_s, 1.5 * soft_s)


@pytest.mark.parametrize(("goal", "spreads", "met"), [(0.5, 15.0, 1.0), (0.8, 3.5, 1.0), (1.0, 8.0, 0.6)])
@pytest.mark.parametrize("spread", [0.05, 0.3, 0.6])
def test_a_steady_fleet(goal: float, spreads: float, met: float, spread: float) -> None:
    """Log-normal times about 60 s: the deadline comes from 600 s to a few spreads above the median, and stays there.

    The more of the fleet is heard in full, the better is its spread known. With a goal of 1 a round is met or not by
    the one slowest device of 50, and the deadline grows again and again.
    """
    random = np.random.default_rng(3)
    deadlines = Deadlines(BOUNDS, 5.0, goal)
    played = [play(deadlines, 60 * np.exp(spread * random.standard_normal(50)), goal) for _ in range(300)]
    soft, reached = np.array(played[100:]).T
    assert 60 * (1 + 2.5 * spread) < np.median(soft) < 60 * (1 + spreads * spread)
    assert np.mean(reached) >= met


def test_a_deadline_that_has_become_too_short_recovers() -> None:
    """The fleet takes eight times as long at once: the goal is met after the few rounds that the growth needs,
    and in nine rounds of ten once those of before are out of the window.
    """
    random = np.random.default_rng(4)
    deadlines = Deadlines(BOUNDS, 5.0, 0.8)
    for _ in range(100):
        play(deadlines, random.uniform(20, 30, 40), 0.8)
    before = deadlines.present.soft_s
    assert before < 50
    met = [play(deadlines, random.uniform(160, 240, 40), 0.8)[1] for _ in range(60)]
    assert not met[0]
    assert met.index(True) <= math.ceil(math.log(240 / before) / math.log(1.5))
    assert np.mean(met[20:]) >= 0.9


def test_a_fleet_that_is_away() -> None:
    """If no device reports for long, the deadline becomes the longest. If no device was asked, it stays the same."""
    deadlines = Deadlines(BOUNDS, 5.0, 0.8)
    for _ in range(30):
        deadlines.learn([10.0] * 9, 1)
    soft_s = deadlines.present.soft_s
    deadlines.learn([], 0)
    assert deadlines.present.soft_s == soft_s < 100
    for _ in range(11):  # 1.5 to the power of 11 is more than 60
        deadlines.learn([], 5)
    assert deadlines.present == BOUNDS


def test_those_not_done_count_as_at_least_the_deadline() -> None:
    """Unfinished devices count with at least the deadline: a goal of a half must not shorten it to the faster half."""
    deadlines = Deadlines(BOUNDS, 5.0, 0.5)
    for _ in range(100):
        play(deadlines, np.array([10.0] * 5 + [50.0] * 5), 0.5)
    assert deadlines.present.soft_s >= 10.0
    assert all(play(deadlines, np.array([10.0] * 5 + [50.0] * 5), 0.5)[1] for _ in range(20))


# ---- arrivals


def generations(
    devices: int, rate: float, first: NDArray[np.float64], times: int = 3
) -> list[NDArray[np.float64]]:  # fmt: skip
    """Have each device connect, be sent away and reconnect several times; return the connection times in order.
    Clocks run wrong by up to 1 %, and links take up to 2 s.
    """
    random = np.random.default_rng(6)
    arrivals = Arrivals(rate)
    come = np.sort(first)
    out = []
    for _ in range(times):
        away = np.array([arrivals.come_back_s(now, next_round(now)) for now in come.tolist()])
        assert away.min() >= 0 and away.max() <= MOST_AWAY_S
        come = np.sort(come + away * random.uniform(0.99, 1.01, devices) + random.uniform(0, 2, devices))
        out.append(come)
    return out


def peak(come: NDArray[np.float64]) -> int:
    """Return the largest number of devices that connected within any one second."""
    return int((np.searchsorted(come, come + 1.0) - np.arange(come.size)).max())


def next_round(now: float) -> float:
    """A round begins every 600 s with the devices of the 10 s before; they are wanted again at the next but one."""
    return (math.floor((now + 10) / 600) + 1) * 600.0


@pytest.mark.parametrize("rate", [100.0, 10.0])
def test_a_fleet_of_ten_is_there_together(rate: float) -> None:
    """A fleet of ten meets within 20 s, most of them within the error of their clocks; 10/s suffice."""
    first = np.random.default_rng(7).uniform(0, 600, 10)
    for come in generations(10, rate, first):
        assert come[-1] - come[0] < 20
        assert abs(come[0] - 600 * round(come[0] / 600)) < 10


@pytest.mark.parametrize(("devices", "rate", "times"), [(10_000, 100.0, 3), (10_000, 20.0, 3), (1_000_000, 100.0, 2)])
@pytest.mark.usefixtures("untraced")
def test_a_large_fleet_comes_evenly(devices: int, rate: float, times: int) -> None:
    """A large fleet that reconnects at once, as after a power cut, then comes at the rate at most, and evenly."""
    shortest_s = devices / int((math.sqrt(rate + 9) - 3) ** 2)
    for come in generations(devices, rate, np.zeros(devices), times):
        assert peak(come) <= rate
        assert come[-1] - come[0] <= 1.05 * shortest_s + 20
        # Evenly: no tenth of the time has less than half or more than twice its share.
        tenths = np.histogram(come, 10)[0] / devices
        assert tenths.min() > 0.05 and tenths.max() < 0.2


def test_a_fleet_that_comes_steadily_is_sent_to_the_next_round() -> None:
    """Ten thousand devices over ten minutes are no crowd: they reconnect within minutes of their next round."""
    first = np.sort(np.random.default_rng(8).uniform(0, 580, 10_000))
    come = generations(10_000, 100.0, first)[0]
    assert peak(come) <= 100 and come[-1] < 600 + 10_000 / 55 + 20


def test_more_than_a_day_holds() -> None:
    """No device is sent away for longer than a day; after that the places of the next day are assigned."""
    arrivals = Arrivals(1.0)
    away = np.array([arrivals.come_back_s(0.0, 10.0) for _ in range(10_000)])
    places = int(MOST_AWAY_S / math.ceil(1 / (math.sqrt(10) - 3) ** 2))
    assert np.array_equal(away[:places], np.unique(away[:places]))
    assert away.min() >= 10.0 and away.max() <= MOST_AWAY_S
    assert np.histogram(away[places:], 10, (0, MOST_AWAY_S))[0].min() > 0.09 * (10_000 - places)
    assert arrivals.come_back_s(0.0, 2 * MOST_AWAY_S) <= MOST_AWAY_S


def test_who_is_wanted_late_keeps_nobody_from_an_early_place() -> None:
    """Places are assigned from the second a device is wanted, even if later places are already taken."""
    arrivals = Arrivals(100.0)
    assert [arrivals.come_back_s(0.0, 900.0) for _ in range(100)][55] == 901.0
    assert arrivals.come_back_s(1.0, 20.0) == 19.0
    assert math.isclose(arrivals.come_back_s(0.0, 900.0), 901.0 + 45 / 55)


def test_places_of_the_past_are_forgotten() -> None:
    """A server that runs for a year remembers places of two days at most."""
    arrivals = Arrivals(1.0)
    for hour in range(24 * 365):
        arrivals.come_back_s(3600.0 * hour, 3600.0 * hour + 60)
    assert len(arrivals._taken) <= 2 * MOST_AWAY_S / 38 + 1 and len(arrivals._behind) <= len(arrivals._taken)


def test_meetings() -> None:
    """Meetings are at multiples, always in the future."""
    assert [next_meeting(now, 60.0) for now in (0.0, 59.9, 60.0)] == [60.0, 60.0, 120.0]


# ---- through the rounds


class Listening(FakeFleet):
    """A bench that keeps the messages sent to the fleet."""

    def __init__(self, **options: Any) -> None:
        self.heard: list[tuple[str, str, Any]] = []
        super().__init__(**options)

    def send(self, device: str, message: bytes) -> None:
        super().send(device, message)
        body = codec.decode(message)
        assert body is not None
        self.heard.append((device, type(body).__name__, body))

    def last(self, device: str, name: str) -> Any:
        """Return the last message of that name that a device was sent."""
        return next(body for to, said, body in reversed(self.heard) if (to, said) == (device, name))

    def come_back_s(self, device: str, **state: int) -> float:
        """Have a device say Hello; return what the Welcome told it."""
        self.hear(device, "Hello", device_id=device, elements=ELEMENTS, layout_crc32=LAYOUT.crc32, **state)
        return float(self.last(device, "Welcome").ComeBackMs()) / 1000


@pytest.mark.parametrize("policy", [{}, {"buffer": 2}])
def test_rounds_adapt(policy: dict[str, float]) -> None:
    """Two devices need 1 s each: the deadlines fall to the least value. The upper bounds are for unknown devices."""
    bench = Listening(devices=2, adaptive=True, min_deadline_s=2.0, **policy)
    bench.come("a", "b")
    told = []
    for round in range(1, 41):
        plan = bench.last("a", "Plan")
        assert plan.Round() == round
        told.append((plan.SoftDeadlineMs(), plan.HardDeadlineMs()))
        bench.now += 1.0
        bench.report("a", 1.0, round=round)
        bench.report("b", 1.0, round=round)
        bench.tick(bench.now)
        bench.tick(bench.now)
    assert told[0] == (10_000, 20_000) and told[1] == (8_000, 16_000) and told[-1] == (2_000, 4_000)
    assert [r.soft_deadline_s for r in bench.records][:2] == [10.0, 8.0]


def test_a_round_keeps_to_its_adapted_deadlines() -> None:
    """The closing notice and the end of a round come as planned; a late device makes the next deadlines longer."""
    bench = Listening(devices=2, goal=1.0, adaptive=True, min_deadline_s=1.0)
    bench.come("a", "b")
    for round in (1, 2, 3):
        bench.report("a", 1.0, round=round)
        bench.report("b", 1.0, round=round)
        bench.tick(bench.now)
        bench.tick(bench.now)
    assert math.isclose(bench.rounds.deadlines[1].present.soft_s, 5.12)
    bench.report("a", 1.0, round=4)
    bench.tick(5.11)
    assert ("all", "ClosingNotice") not in bench.said
    bench.tick(5.13)
    assert bench.last("all", "ClosingNotice").RemainingMs() == int(1000 * (2 * 5.12 - 5.13))
    bench.tick(10.23)
    assert len(bench.records) == 3
    bench.tick(10.25)
    assert len(bench.records) == 4
    assert math.isclose(bench.rounds.deadlines[1].present.soft_s, 1.5 * 5.12)


def test_overdue_devices_of_asynchronous_rounds_make_deadlines_longer() -> None:
    """An overdue device is counted once, at the commit; its late update does not shorten the deadline."""
    bench = Listening(devices=3, buffer=1, adaptive=True, min_deadline_s=1.0, goal=0.8, max_staleness=50)
    bench.come("a", "b", "c")
    for round in range(1, 11):
        bench.report("a", 1.0, round=round)
        bench.tick(bench.now)
    short = bench.rounds.deadlines[-1].present.soft_s
    assert math.isclose(short, 10 * 0.8**10)
    bench.now = 25.0
    bench.report("a", 1.0, round=11)
    bench.tick(25.0)
    longer = bench.rounds.deadlines[-1].present.soft_s
    assert math.isclose(longer, 1.5 * short)  # two of three were overdue, and "a" too: asked 25 s ago


def test_welcome_tells_when_to_come_back() -> None:
    """No return time while a plan may come; the next round if one is open; longer if the device may not be asked."""
    pace = Pace(arrivals_per_s=100.0, meet_s=60.0, ineligible_s=900.0)
    bench = Listening(devices=2, pace=pace, selection=Selection(require_charging=True))
    bench.now = 45.0
    assert bench.come_back_s("a", flags=CHARGING) == 15.0  # too few devices: they meet at the full minute
    assert bench.come_back_s("b", flags=CHARGING) == 0.0  # this device starts the round
    assert bench.come_back_s("c") == 900.0  # not charging
    bench.tick(45.0)
    bench.now = 50.0
    assert bench.come_back_s("a", flags=CHARGING) == 0.0  # it has its plan
    late = [bench.come_back_s(device, flags=CHARGING) for device in ("d", "e")]
    assert late == [15.0, 15.018]  # at the hard deadline, one after the other


@pytest.mark.parametrize("policy", [{}, {"buffer": 2}])
def test_a_latecomer_is_wanted_at_the_next_round(policy: dict[str, float]) -> None:
    """A latecomer is wanted at the next round: after the hard deadline at first, then by the last round's length."""
    bench = Listening(devices=2, select=2.0, **policy)
    bench.come("a", "b")
    assert bench.come_back_s("late") == 20.0
    bench.now = 4.0
    bench.report("a", 1.0)
    bench.report("b", 1.0)
    bench.tick(4.0)
    bench.tick(4.0)
    bench.now = 5.0
    assert bench.come_back_s("later") == 3.0


@pytest.mark.parametrize("policy", [{}, {"buffer": 2}])
def test_a_commit_that_fails_teaches_nothing(policy: dict[str, float], tmp_path: Path) -> None:
    """A failed commit changes no statistics: once the locked database is free, the reports count once."""
    store = Store(tmp_path / "f.sqlite", LAYOUT, np.zeros(ELEMENTS, np.float32))
    bench = Listening(store=store, devices=2, adaptive=True, min_deadline_s=1.0, **policy)
    bench.come("a", "b")
    bench.now = 1.0
    bench.report("a", 1.0)
    bench.report("b", 1.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "f.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            bench.tick(1.0)
    bench.tick(2.0)
    assert len(bench.records) == 1 and bench.rounds.deadlines[-1].present.soft_s == 8.0
    store.close()


# ---- with real C clients, on a virtual clock


def virtual(policy: Policy, selection: Selection, hours: float) -> list[Record]:
    """Simulate hours of 80 devices in three classes with very different speeds and links; return the rounds."""
    fleet = FleetSettings(devices=80, hours=hours)
    result = simulate_digits(fleet, ServerSettings(FedAvg(), PRESET_TRAINING, policy, selection=selection)).run(
        fleet.hours
    )
    return [commit.record for commit in result.commits]


@pytest.mark.usefixtures("untraced")
def test_adaptive_deadlines_make_more_rounds_of_the_same_time() -> None:
    """Adaptive deadlines make twice as many rounds where the goal is all devices, and no fewer with another goal.

    The share of partial updates is no larger.
    """
    everyone = replace(PRESET_POLICY, select=10, devices=10, goal=1.0)
    assert (
        len(virtual(replace(everyone, adaptive=True), Selection(), 2.0))
        >= 2 * len(virtual(everyone, Selection(), 2.0))
        > 40
    )
    policy = replace(everyone, goal=0.8)
    fixed = virtual(policy, Selection(), 2.0)
    adaptive = virtual(replace(policy, adaptive=True), Selection(), 2.0)
    assert len(adaptive) >= len(fixed) > 80
    in_part = [sum(r.partial for r in rounds) / sum(r.reported for r in rounds) for rounds in (fixed, adaptive)]
    assert in_part[1] <= in_part[0] + 0.02
    assert max(r.soft_deadline_s for r in adaptive[40:]) < 0.3 * policy.soft_deadline_s


@pytest.mark.usefixtures("untraced")
def test_each_tier_has_its_deadline() -> None:
    """Each tier of real clients has its own deadline and does not wait for a slower tier."""
    policy = replace(PRESET_POLICY, select=10, devices=10, goal=0.8, adaptive=True, min_deadline_s=8.0)
    rounds = virtual(policy, Selection(tiers=3), 1.2)[50:]
    soft = [np.median([r.soft_deadline_s for r in rounds if r.tier == tier]) for tier in (1, 2, 3)]
    assert soft[0] < 0.6 * soft[1] < 0.6 * soft[2]
    assert len(rounds) > 15
    turns = np.bincount([r.tier for r in rounds], minlength=4)[1:]
    assert turns.max() - turns.min() <= 3


def test_who_says_hello_again_and_again_takes_no_more_than_one_place() -> None:
    bench = Listening(devices=5, selection=Selection(require_charging=True))
    bench.come_back_s("flood", flags=CHARGING)
    for _ in range(1000):
        bench.now += 0.01
        bench.come_back_s("flood", flags=CHARGING)
        bench.come_back_s("flood")
    assert bench.come_back_s("a", flags=CHARGING) == pytest.approx(60.0 - bench.now, abs=1)
    assert bench.come_back_s("b") == pytest.approx(900.0, abs=1)


def test_the_longest_deadline_can_be_told() -> None:
    bench = FakeFleet(store=(store := new_store()), soft_deadline_s=4e6, hard_deadline_s=4e6)
    bench.come("a")
    again = FakeFleet(store=store, soft_deadline_s=4e6, hard_deadline_s=4e6, goal=0.1, resume_s=0.0)
    again.come("a", "b", held_round=1)
    again.report("a", 1.0)
    again.tick(1.0)
    assert again.state() is State.CLOSING
    again.come("b", held_round=1)
    assert again.said[-1] == ("b", "ClosingNotice")
