# SPDX-License-Identifier: Apache-2.0
"""The memory check of the chaos run finds a leak, also in a process that is restarted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from resident import Sample, growth, leaks

MIB = 2**20
Size = Callable[[float], float]


def flat(age: float) -> float:
    return 40.0 + age % 3


def leaking(age: float) -> float:
    return 40.0 + 0.02 * age


def samples(server: Size, devices: Size) -> list[Sample]:
    """Return half an hour of samples. The server is restarted every two minutes except the last ten, and the broker
    throughout.
    """
    out: list[Sample] = []
    for at in range(0, 1800, 2):
        life = min(at // 120, 10)
        sizes = {"broker": 8.0, "server": server(at - 120 * life), "devices": devices(at)}
        pids = {"broker": 1000 + at // 60, "server": 100 + life, "devices": 1}
        out += [Sample(float(at), name, pids[name], int(MIB * size)) for name, size in sizes.items()]
    return out


def test_growth_is_of_the_last_third_over_the_first() -> None:
    assert abs(growth([(float(t), flat(t)) for t in range(90)])) < 0.01
    assert growth([(float(t), 100.0 + t) for t in range(91)]) == pytest.approx(175 / 115 - 1)


@pytest.mark.parametrize(
    ("server", "devices", "found"),
    [
        (flat, flat, []),
        (leaking, flat, ["all", "last server"]),
        (flat, leaking, ["all", "devices"]),
        (lambda age: 40.0 - 0.02 * age, flat, ["all", "last server"]),
    ],
)
def test_a_leak_is_seen(server: Size, devices: Size, found: list[str]) -> None:
    assert [line.partition(":")[0] for line in leaks(samples(server, devices))] == found
