# SPDX-License-Identifier: Apache-2.0
"""The comparison of docs/stragglers.md in short: one seed, a lower target. All times are virtual."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HOURS, TARGET = 0.06, 0.90


@pytest.fixture
def stragglers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "bench")
    return importlib.import_module("stragglers")


def test_the_stragglers_hold_most_of_two_labels(stragglers: ModuleType) -> None:
    """The stragglers hold most examples of two labels; otherwise it would not matter to discard them."""
    fleet = stragglers.straggler_fleet(1)
    devices = fleet.population
    slow = stragglers.DEVICES - stragglers.STRAGGLERS
    assert all((devices.class_of(i).name == "straggler") == (i >= slow) for i in range(len(devices)))
    assert sorted(np.concatenate(fleet.parts).tolist()) == list(range(len(fleet.y)))  # each example has one owner
    theirs = np.bincount(fleet.y[np.concatenate(fleet.parts[slow:])], minlength=10) / np.bincount(fleet.y)
    assert all((share > 0.8) == (label in stragglers.LABELS) for label, share in enumerate(theirs))
    assert min(map(len, fleet.parts)) >= stragglers.LEAST
    assert devices.steps_per_s[:slow].min() > 6 * devices.steps_per_s[slow:].max()


def test_partial_updates_are_faster_than_waiting_and_fairer_than_discarding(stragglers: ModuleType) -> None:
    found = {}
    for name in ("discard", "wait", "partial", "nova", "buffered"):
        longest = 0.3 if name == "wait" else HOURS
        commits = stragglers.run(stragglers.WAYS[name], 1, HOURS, longest, TARGET)
        found[name] = stragglers.figures(commits, HOURS, TARGET)
    assert found["wait"]["rounds"] < found["partial"]["rounds"]
    for name in ("partial", "nova"):
        assert found[name]["seconds"] <= found["wait"]["seconds"] / 2
        assert found[name]["seconds"] <= found[name]["smoothed"] <= found["wait"]["smoothed"] / 2
        assert found[name]["labels"] > found["discard"]["labels"] + 0.2
        assert found[name]["accuracy"] > found["discard"]["accuracy"] + 0.05
    assert found["nova"]["seconds"] < found["partial"]["seconds"] < found["discard"]["seconds"]
    assert found["discard"]["labels"] < found["buffered"]["labels"] < found["nova"]["labels"]
    assert found["buffered"]["seconds"] < found["wait"]["seconds"] < float("inf")


def test_who_reports_is_what_the_policy_says(stragglers: ModuleType) -> None:
    fast = stragglers.DEVICES - stragglers.STRAGGLERS
    for name, reported, partial in (
        ("discard", fast, 0), ("wait", stragglers.DEVICES, 0), ("partial", stragglers.DEVICES, stragglers.STRAGGLERS)
    ):  # fmt: skip
        record = stragglers.run(stragglers.WAYS[name], 1, 0.04, 0.04, TARGET)[0].record
        assert (record.selected, record.reported, record.partial) == (stragglers.DEVICES, reported, partial)
