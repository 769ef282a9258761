# SPDX-License-Identifier: Apache-2.0
"""What devices that are not selected hear, and pauses between rounds."""

from __future__ import annotations

from fake_fleet import FakeFleet

from fedmote.rounds.synchronous import State


def test_rounds_start_at_least_min_interval_s_apart() -> None:
    bench = FakeFleet(devices=2, goal=1.0, min_interval_s=30.0)
    bench.come("a", "b")
    starts: list[tuple[int, int]] = []
    for second in range(100):
        bench.tick(float(second))
        number = bench.rounds.number
        if bench.sync.state is State.TRAINING and (not starts or starts[-1][0] != number):
            starts.append((number, second))
            for device in "ab":
                bench.report(device, 1.0, round=number)
    assert starts == [(1, 0), (2, 30), (3, 60), (4, 90)]


def test_idle_devices_are_told_nothing() -> None:
    """With 2 of 10 selected, closing notice and commit go to these two alone, after the first round of a server."""
    bench = FakeFleet(select=2, devices=10, goal=0.5)
    bench.come(*"abcdefghij")
    for number in (1, 2):
        before = len(bench.said)
        selected = sorted(bench.sync.cohort.selected)
        for device in selected:
            bench.report(device, 1.0, round=number)
            bench.tick(bench.now + 0.1)
        said = bench.said[before:]
        if number == 2:
            assert ("all", "Commit") not in said and ("all", "ClosingNotice") not in said
            assert [(d, m) for d, m in said if m == "Commit"] == [(d, "Commit") for d in selected]
        bench.tick(bench.now + 1.1)
