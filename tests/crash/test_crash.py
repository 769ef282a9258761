# SPDX-License-Identifier: Apache-2.0
"""The server dies by SIGKILL, again and again, in the middle of rounds with fifty real devices on a real broker.

--kills says how often in each test; `make crash` makes it 200. Whatever the moment, every model is to the bit the one
that a server which never died would have committed, and every device's work counts once.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness import WHEN, Crash, chosen, judge, judge_buffered
from work import DEVICES

AFTERWARDS = 2  # rounds without a kill
MANY = 100  # from this number of kills on, each run draws its own points; with fewer, every run has the same ones


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


def test_without_a_crash(tmp_path: Path) -> None:
    """Without kills, the server commits the reference models."""
    with Crash(tmp_path) as crash:
        crash.run(5)
        assert judge(crash) == 5


def test_chosen_points(tmp_path: Path, kills: int) -> None:
    """Kill before and after each durable step and each kind of message, first while there is no database yet."""
    points = chosen(kills)
    with Crash(tmp_path) as crash:
        for point, fresh in points:
            if fresh:
                crash.forget()
            crash.kill_at(point)
        crash.run(AFTERWARDS)
        rounds = judge(crash)
        assert crash.points() == [*(point for point, _ in points), "never"]
        print(f"{kills} chosen points, {crash.lost()} of them with updates in memory; {rounds} rounds")


def test_random_points(tmp_path: Path, kills: int) -> None:
    """Kill at any time after the start, and at any line of the server or its MQTT client, during two rounds."""
    seed = random.SystemRandom().randrange(2**32) if kills >= MANY else kills
    print(f"seed {seed}")
    draw = random.Random(seed)
    with Crash(tmp_path) as crash:
        crash.kill_at("before Plan 1")  # the measured servers find the devices in the same state as the others do
        seconds = crash.timed(2)
        crash.kill_at("before Plan 1")
        crash.start("line 0", rounds=4)
        crash.wait(0)
        lines = max(entry.get("lines", 0) for entry in crash.log())
        for number in range(kills):
            if number % 2:
                crash.kill_at(f"line {draw.randint(1, lines)}")
            else:
                crash.kill_after(draw.uniform(0, seconds))
        crash.run(AFTERWARDS)
        rounds = judge(crash)
        print(f"{kills} random points, {crash.lost()} of them with updates in memory; {rounds} rounds")


def test_asynchronous_rounds(tmp_path: Path, kills: int) -> None:
    """In asynchronous rounds of half the devices, plans and the updates counted in a model survive a killed server."""
    seed = random.SystemRandom().randrange(2**32) if kills >= MANY else kills
    print(f"seed {seed}")
    draw = random.Random(seed)
    steps = [
        "INSERT OR REPLACE 1",
        "INSERT OR REPLACE 2",
        "COMMIT 3",
        "Receipt 20",
        "UPDATE assignment SET 1",
        "Commit 1",
    ]
    with Crash(tmp_path, buffer=DEVICES // 2) as crash:
        crash.start("line 0", rounds=4)
        crash.wait(0)
        lines = max(entry.get("lines", 0) for entry in crash.log())
        for number in range(kills):
            step = f"{WHEN[number % 2]} {draw.choice(steps)}"
            crash.kill_at(step if number % 4 < 2 else f"line {draw.randint(1, lines)}")
        crash.run(2 * AFTERWARDS)
        rounds = judge_buffered(crash)
        print(f"{kills} points of asynchronous rounds, {crash.lost()} with updates in memory; {rounds} rounds")
