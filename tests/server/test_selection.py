# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every rule of selection is judged on the same fleets.
"""Client selection: fairness over time, utility, tiers by speed, and the requirements on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from fake_fleet import ELEMENTS, LAYOUT, FakeFleet, new_store
from numpy.typing import NDArray

from fedmote.fleet import sampling
from fedmote.fleet import selector as selector_module
from fedmote.fleet.sampling import epsilon, utilities, weighted
from fedmote.fleet.selection import BUSY, CHARGING, METERED, Selection
from fedmote.fleet.selector import Choice, Selector
from fedmote.fleet.tiers import Tiers
from fedmote.store.store import Store


def nobody(devices: Sequence[str]) -> dict[str, int]:
    """A registry that knows no device."""
    return {}


def names(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{i:06d}" for i in range(count)]


Rule = Literal["fair", "random", "utility"]


class History:
    """Rounds of a fleet in which some devices are online each time, and the devices selected in them."""

    def __init__(self, by: Rule, devices: int, count: int) -> None:
        self.devices, self.count = names(devices), count
        self.selector = Selector(Selection(by=by), 1, nobody)
        self.rounds: list[list[int]] = []

    def round(self, there: NDArray[np.bool_]) -> list[int]:
        """Run one round with the online devices; return the selected ones."""
        number = len(self.rounds) + 1
        candidates = [self.devices[i] for i in np.flatnonzero(there)]
        choice = self.selector.choose(candidates, self.count, number, 1.0)
        assert len(choice.devices) == min(self.count, len(candidates)) and set(choice.devices) <= set(candidates)
        self.selector.note_selected(choice.devices, number)
        self.rounds.append([int(device[1:]) for device in choice.devices])
        return self.rounds[-1]

    def run(self, rounds: int, there: NDArray[np.float64]) -> NDArray[np.int64]:
        """Run rounds in which each device is online with its probability; return how often each was selected."""
        random = np.random.default_rng(5)
        for _ in range(rounds):
            self.round(random.random(there.size) < there)
        return np.bincount(np.concatenate(self.rounds), minlength=there.size)


@pytest.mark.parametrize(
    ("settings", "flags", "battery", "memory", "may"),
    [
        ({}, 0, 255, 0, True),
        ({}, METERED, 0, 1, True),
        ({}, BUSY, 100, 0, False),
        ({"require_idle": False}, BUSY, 100, 0, True),
        ({"require_charging": True}, 0, 100, 0, False),
        ({"require_charging": True}, CHARGING, 1, 0, True),
        ({"require_unmetered": True}, METERED | CHARGING, 100, 0, False),
        ({"require_unmetered": True}, CHARGING, 100, 0, True),
        ({"min_battery": 40}, 0, 39, 0, False),
        ({"min_battery": 40}, 0, 40, 0, True),
        ({"min_battery": 100}, 0, 255, 0, True),
        ({"min_free_memory_kib": 64}, 0, 255, 63, False),
        ({"min_free_memory_kib": 64}, 0, 255, 64, True),
        ({"min_free_memory_kib": 64}, 0, 255, 0, True),
    ],
)
def test_eligibility(settings: dict[str, Any], flags: int, battery: int, memory: int, may: bool) -> None:
    """A device's report is checked against the requirements. A value that it does not report is no obstacle."""
    assert Selection(**settings).permits(flags, battery, memory) is may


def test_the_weighted_draw_is_in_proportion() -> None:
    """Each index is drawn first in proportion to its weight; the second draw does the same with the rest."""
    random = np.random.default_rng(1)
    pairs = [weighted(np.array([1.0, 2.0, 5.0]), 2, random) for _ in range(20_000)]
    first = np.bincount([pair[0] for pair in pairs], minlength=3) / len(pairs)
    assert np.abs(first - np.array([1, 2, 5]) / 8).max() < 0.015  # four standard deviations
    behind_2 = np.bincount([pair[1] for pair in pairs if pair[0] == 2], minlength=3)
    assert abs(behind_2[1] / behind_2.sum() - 2 / 3) < 0.02 and behind_2[2] == 0


def test_fair_shares() -> None:
    """200 devices, each there half of the time, 20 asked: all within a quarter of the mean after 400 rounds.

    A blind draw does not keep this bound.
    """
    there = np.full(200, 0.5)
    fair, blind = (History(by, 200, 20).run(400, there) for by in ("fair", "random"))
    assert fair.min() >= 0.75 * fair.mean() and fair.max() <= 1.25 * fair.mean()
    assert blind.min() < 0.75 * blind.mean() and blind.max() > 1.25 * blind.mean()


def test_nobody_waits_for_long() -> None:
    """In a fleet that is always online, no device waits longer than four turns. A uniform draw breaks this bound."""

    def longest(by: Rule) -> int:
        history = History(by, 200, 20)
        history.run(400, np.ones(200))
        asked = [np.flatnonzero([device in chosen for chosen in history.rounds]) for device in range(200)]
        return max(int(np.diff(np.concatenate([[-1], rounds, [400]])).max()) for rounds in asked)

    assert longest("fair") <= 40 < longest("random")


def test_a_small_class_gets_its_share() -> None:
    """5 % of the fleet, there as often as the others: 5 % of the rounds' places, give or take a tenth of that.

    There half as often, a blind draw gives it half its share; this one at least 70 %.
    """
    there = np.full(200, 0.5)
    small = History("fair", 200, 20).run(400, there)[:10].sum() / 8000
    assert 0.045 <= small <= 0.055
    there[:10] = 0.25
    rarely = [History(by, 200, 20).run(400, there)[:10].sum() / 8000 for by in ("fair", "random")]
    assert rarely[0] >= 0.035 and rarely[1] <= 0.03


@pytest.mark.parametrize("count", [5, 10, 20])
def test_a_device_that_comes_once_a_week_is_heard(count: int) -> None:
    """Hourly rounds of a fleet of 500: the odds of a weekly visitor are those that `fair_weights` states."""
    taken = visits = 0
    history = History("fair", 500, count)
    always = np.arange(500) >= 5
    absence = dict.fromkeys(range(5), 0)
    expected = []
    for hour in range(1, 1 + 168 * 12):
        asked = history.round(always if hour % 168 else np.ones(500, bool))
        if hour % 168 == 0:
            for device, last in absence.items():
                turns = min((hour - last) * count / 500, sampling.MOST_TURNS)
                expected.append(1 - math.exp(-2.1 * turns**2 * count / 500))
                if device in asked:
                    absence[device] = hour
                    taken += 1
                visits += 1
    assert visits == 60
    deviation = math.sqrt(sum(p * (1 - p) for p in expected))
    assert abs(taken - sum(expected)) <= 3 * deviation + 0.1 * sum(expected)
    assert taken > 4 * visits * count / 500  # what a blind draw gives, four times


def test_the_same_seed_and_history_choose_the_same() -> None:
    """The choice is the same if the history comes from the registry instead of memory, as after a restart."""
    devices = names(300)

    def chosen(seed: int, restart: int) -> list[list[str]]:
        registry: dict[str, int] = {}

        def lookup(asked: Sequence[str]) -> dict[str, int]:
            return {device: registry[device] for device in asked if device in registry}

        out = []
        selector = Selector(Selection(), seed, lookup)
        for number in range(1, 21):
            if number == restart:
                selector = Selector(Selection(), seed, lookup)
            there = [device for i, device in enumerate(devices) if (i + number) % 3]
            out.append(selector.choose(there, 30, number, 1.0).devices)
            selector.note_selected(out[-1], number)
            registry.update(selector.unsaved)
            selector.note_saved()
        return out

    assert chosen(1, 0) == chosen(1, 0) == chosen(1, 10)
    assert chosen(1, 0) != chosen(2, 0)
    draws = Selector(Selection(), 1, nobody)
    assert draws.choose(devices, 30, 1, 1.0, draw=0) != draws.choose(devices, 30, 1, 1.0, draw=1)


def test_what_is_not_saved_yet_is_not_forgotten() -> None:
    """Selections are remembered if devices leave and come back before the commit that saves them."""
    selector = Selector(Selection(), 1, nobody)
    selector.note_selected(["a"], 5)
    selector.choose(names(selector_module.MOST_KNOWN + 1), 1, 6, 1.0)
    selector.choose(["b"], 1, 6, 1.0)  # all other devices are forgotten
    choices = [selector.choose(["a", "b"], 1, 6, 1.0, draw).devices for draw in range(100)]
    assert choices.count(["b"]) > 80  # 7 rounds to the power of 2 against 2: "b" was never asked


def test_exploration_decays() -> None:
    """Exploration decays from 0.9 by 2 % per round to 0.2, as in the paper."""
    assert epsilon(1) == 0.9 and epsilon(2) == 0.9 * 0.98 and epsilon(1000) == 0.2


def test_utilities_by_hand() -> None:
    """Utility is the scaled loss plus the bonus for old information, times the penalty for slow devices."""
    learnt, rounds = np.array([10.0, 20.0, 30.0]), np.array([2.0, 8.0, 4.0])
    low, high = 10.0, float(np.percentile(learnt, 95))
    bonus = np.sqrt(0.1 * math.log(9) / rounds)
    wanted = (np.minimum(learnt, high) - low) / (high - low) + bonus
    assert np.allclose(utilities(learnt, rounds, np.array([1.0, 1.0, 4.0]), 9, 2.0), wanted * [1, 1, 0.25])
    assert np.allclose(utilities(np.full(3, 7.0), rounds, np.ones(3), 9, 2.0), 1 + bonus)


def test_one_liar_does_not_own_the_draw() -> None:
    """A false claim beyond the 95th percentile of the known utilities brings no advantage."""
    learnt = np.append(np.linspace(1, 2, 99), 1e30)
    honest = np.append(np.linspace(1, 2, 99), 2.0)
    even = np.ones(100)
    claimed, told = utilities(learnt, even, even, 2, 9.0), utilities(honest, even, even, 2, 9.0)
    assert claimed[-1] <= 1.05 * told.max() and np.abs(claimed - told).max() < 0.05


def test_utility_asks_those_who_teach_most() -> None:
    """In late rounds, four fifths of the selected devices are the best; slow and low-utility ones are rare."""
    devices = names(100)
    selector = Selector(Selection(by="utility"), 1, nobody)
    for i, device in enumerate(devices):
        good = i < 20
        selector.note_reported(device, 150, 50.0 if 10 <= i < 20 else 5.0, 100, 2.0 if good else 0.5)
    choices = [selector.choose(devices, 10, number, 10.0).devices for number in range(200, 300)]
    counts = np.zeros(100)
    for choice in choices:
        counts[[devices.index(device) for device in choice]] += 1
    assert counts[:10].min() >= 90  # of 100 rounds
    assert counts[10:20].sum() == 0  # five times too slow


def test_utility_explores() -> None:
    """In round 1 all devices are unknown. Later, up to nine tenths of the selected devices are unknown ones."""
    devices = names(100)
    selector = Selector(Selection(by="utility"), 1, nobody)
    assert len(selector.choose(devices, 10, 1, 10.0).devices) == 10
    for device in devices[:10]:
        selector.note_reported(device, 1, 5.0, 100, 1.0)
    for number, unknown in ((2, 9), (30, 5), (300, 2)):
        choice = selector.choose(devices, 10, number, 10.0)
        assert sum(device not in devices[:10] for device in choice.devices) == unknown
    selector.note_overdue(devices[50], 60.0)  # a device that never reported is still unknown
    assert len(selector.choose(devices[50:60], 10, 300, 10.0).devices) == 10
    assert selector.choose([], 10, 300, 10.0).devices == []


def test_tiers_take_turns() -> None:
    """The devices of a tier have similar speed. Each tier gets a third of the rounds, the slow one too."""
    devices = names(90)
    selector = Selector(Selection(tiers=3), 1, nobody)
    first = selector.choose(devices, 30, 1, 1.0)
    assert first.tier == Tiers.PROFILING and len(first.devices) == 30
    for i, device in enumerate(devices):
        selector.note_reported(device, 1, 1.0 + 100.0 * (i % 3) + i / 100, 10, 1.0)
    turns: list[int] = []
    for number in range(2, 62):
        choice = selector.choose(devices, 10, number, 1.0)
        assert {int(device[1:]) % 3 for device in choice.devices} == {choice.tier - 1}
        turns.append(choice.tier)
        counts = np.bincount(turns, minlength=4)[1:]
        assert np.abs(counts - len(turns) / 3).max() < 1
    assert turns != sorted(turns)


def test_devices_of_unknown_speed() -> None:
    """If the unknown devices suffice for a round, they are measured first. Otherwise they join the slowest tier."""
    tiers = Tiers(3)
    seconds = np.append(np.arange(9.0), [math.nan, math.nan])
    assert tiers.pick(seconds, 2)[0] == Tiers.PROFILING
    met = {}
    for _ in range(6):
        tier, members = tiers.pick(seconds, 3)
        met[tier] = members.tolist()
    assert met == {1: [0, 1, 2], 2: [3, 4, 5], 3: [6, 7, 8, 9, 10]}
    assert Tiers(3).pick(np.array([2.0, 1.0]), 2)[1].size == 1  # fewer devices than tiers


def test_who_was_not_done_is_slow() -> None:
    """A device that missed its deadline counts at least that time: it is in the slowest tier and no longer unknown."""
    selector = Selector(Selection(tiers=2), 1, nobody)
    for device, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        selector.note_reported(device, 1, seconds, 1, 1.0)
    selector.note_overdue("d", 60.0)
    selector.note_overdue("a", 100.0)
    choices = [selector.choose(["a", "b", "c", "d"], 2, number, 1.0) for number in (2, 3)]
    assert sorted(choices) == [Choice(1, ["b", "c"]), Choice(2, ["a", "d"])]
    for number in (2, 3, 4, 5, 6, 7, 8):
        selector.note_reported("a", number, 1.0, 1, 1.0)  # its mean comes down again
    choices = [selector.choose(["a", "b", "c", "d"], 2, number, 1.0) for number in (2, 3)]
    assert sorted(choices)[0] == Choice(1, ["a", "b"])


def test_a_hundred_thousand_candidates() -> None:
    """Selection from 100,000 candidates works with tiers and utilities; the memory per device is bounded."""
    devices = names(100_000)
    selector = Selector(Selection(by="utility", tiers=4), 1, nobody)
    for i, device in enumerate([*devices, *names(5, "e")]):
        selector.note_reported(device, 1, 1.0 + i % 97, 10, 1.0)
    assert len(selector._known) == selector_module.MOST_KNOWN and devices[4] not in selector._known
    choice = selector.choose(devices, 2000, 2, 10.0)
    assert len(set(choice.devices)) == 2000 and choice.devices == sorted(choice.devices)


def test_no_figure_of_a_device_is_kept_without_need() -> None:
    """Without tiers, a fair or uniform choice stores neither speed nor loss."""
    for by in ("fair", "random"):
        selector = Selector(Selection(by=by), 1, nobody)
        selector.note_reported("a", 1, 1.0, 10, 1.0)
        selector.note_overdue("b", 1.0)
        assert not selector._known


# ---- through the rounds


def test_rounds_ask_only_whom_they_may() -> None:
    """A device is selected once it reports the required values, also if it does so later."""
    required = Selection(require_charging=True, min_battery=50, min_free_memory_kib=64)
    bench = FakeFleet(selection=required, devices=1)
    hello = {"elements": ELEMENTS, "layout_crc32": LAYOUT.crc32}
    bench.hear("a", "Hello", device_id="a", flags=CHARGING, battery=49, **hello)
    bench.hear("b", "Hello", device_id="b", flags=0, battery=80, **hello)
    bench.hear("c", "Hello", device_id="c", flags=CHARGING, battery=80, free_memory_kib=63, **hello)
    bench.tick(0.0)
    assert bench.fleet.sessions.ready() == [] and bench.rounds.record.selected == 0
    bench.hear("b", "DeviceState", flags=CHARGING, battery=80)
    bench.tick(1.0)
    assert ("b", "Plan") in bench.said and ("a", "Plan") not in bench.said
    bench.hear("c", "Hello", device_id="c", flags=CHARGING, battery=80, free_memory_kib=64, **hello)
    assert bench.fleet.sessions.ready() == ["b", "c"]


@pytest.mark.parametrize("policy", [{}, {"buffer": 1}])
def test_who_was_asked_outlives_the_server(tmp_path: Path, policy: dict[str, Any]) -> None:
    """The commit saves which devices were selected: after a restart, the others come first."""
    store = Store(tmp_path / "f.sqlite", LAYOUT, np.zeros(ELEMENTS, np.float32))
    before = FakeFleet(store=store, devices=20, select=5.0, **policy)
    fleet = names(20)
    before.come(*fleet)
    asked = [device for device, message in before.said if message == "Plan"]
    assert len(asked) == 5
    for device in asked:
        before.report(device, 1.0)
    before.tick(1.0)
    store.close()
    after = Store(tmp_path / "f.sqlite", LAYOUT, np.zeros(ELEMENTS, np.float32))
    assert set(after.rounds.last_selected(fleet)) >= set(asked) and set(after.rounds.last_selected(fleet).values()) == {
        1
    }
    assert after.rounds.last_selected(["stranger"]) == {}
    after.close()


def test_only_what_changed_is_written() -> None:
    """A commit writes only the rows of devices selected since the last one, however large the registry is."""
    store = new_store()
    model = np.zeros(ELEMENTS, np.float32)
    store.commit(1, model, {}, selected=dict.fromkeys(names(1000), 1))
    before = store._database._connection.total_changes
    store.commit(2, model, {}, selected={"d000003": 2, "new": 2})
    assert store._database._connection.total_changes - before == 4  # model, round, two devices
    assert store.rounds.last_selected(["d000003", "new", "d000004"]) == {"d000003": 2, "new": 2, "d000004": 1}


def test_a_round_of_each_tier() -> None:
    """With two fast and two slow devices, all are measured first; then each round selects one pair."""
    bench = FakeFleet(selection=Selection(tiers=2), devices=4, goal=1.0)
    bench.come("a", "b", "c", "d")
    assert bench.rounds.record.tier == Tiers.PROFILING
    for round in range(1, 6):
        start, asked = bench.now, list(bench.sync.cohort.selected)
        for device in [d for d in asked if d in "ab"]:
            bench.now = start + 1.0
            bench.report(device, 1.0, round=round)
        for device in [d for d in asked if d in "cd"]:
            bench.now = start + 8.0
            bench.report(device, 1.0, round=round)
        bench.tick(bench.now)
        bench.tick(bench.now)
    assert [(r.tier, r.selected) for r in bench.records] == [(0, 4), (1, 2), (2, 2), (1, 2), (2, 2)]
    assert [r.seconds for r in bench.records] == [8.0, 1.0, 8.0, 1.0, 8.0]


def test_who_holds_work_is_given_time_for_any_speed() -> None:
    """In a reopened round or after a restart, devices that hold its update are asked first, at any speed."""
    bench = FakeFleet(selection=Selection(tiers=2), devices=3, select=2.0)
    hello = {"elements": ELEMENTS, "layout_crc32": LAYOUT.crc32}
    for device, speed in (("a", 1.0), ("b", 1.0), ("c", 9.0)):
        bench.rounds.selector.note_reported(device, 1, speed, 1, 1.0)
    for device, held in (("a", 0), ("b", 0), ("c", 1)):
        bench.hear(device, "Hello", device_id=device, held_round=held, **hello)
    bench.tick(0.0)
    assert "c" in bench.sync.cohort.selected and len(bench.sync.cohort.selected) == 2
    assert bench.rounds.record.tier == Tiers.PROFILING
