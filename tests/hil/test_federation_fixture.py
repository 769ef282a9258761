# SPDX-License-Identifier: Apache-2.0
"""The fixture federation: it reports rounds as they happened, with MQTT and serial devices together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from real_broker import Known, mean

from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy

ELEMENTS = 100


def test_both_links_learn_digits(federation: Callable[..., Any]) -> None:
    """Three devices on the broker and two on cables all report in every round, and the model gets better."""
    running = federation(5, serial=2)
    running.wait_rounds(3)
    everybody = [f"desktop-{i}" for i in range(5)]
    assert all(sorted(running.folds(r).devices) == everybody for r in (1, 2, 3))
    assert running.accuracy() > 0.7 > running.accuracy(running.folds(1).base)


def test_the_model_without_a_device(federation: Callable[..., Any]) -> None:
    """With a layout of the test's own and known updates: what was folded, and the mean of the others."""
    trainers = [Known(i, ELEMENTS) for i in range(3)]
    running = federation(
        3, trainers=trainers, layout=Layout((Tensor("parameter0", (ELEMENTS,)),)),
        policy=Policy(devices=3, goal=1.0, chunk_elements=16, encodings=("float32",)),
    )  # fmt: skip
    running.wait_rounds(2)
    for number in (1, 2):
        assert np.array_equal(running.models[number - 1], mean(trainers, number))
        assert np.array_equal(running.model_without(number, ["desktop-2"]), mean(trainers[:2], number))
    with pytest.raises(ValueError, match="ends after 10 rounds"):
        running.wait_rounds(11)
    with pytest.raises(ValueError, match="layout of its own"):
        running.accuracy()


def test_a_round_held_open(federation: Callable[..., Any]) -> None:
    """A device that is held keeps the round open, although the other one has its receipt."""
    running = federation(2, held=[0])
    running.wait_folded("desktop-1")
    with pytest.raises(TimeoutError, match="no 1 rounds"):
        running.wait_rounds(1, timeout_s=0.2)
    assert running.recorder.current.devices == ["desktop-1"]
    running.release(0)
    running.wait_rounds(1)
    assert running.folds(1).devices == ["desktop-1", "desktop-0"]


def test_an_error_of_a_trainer_is_the_tests(federation: Callable[..., Any]) -> None:
    """An exception on a thread is raised where the test waits."""

    class Broken(Known):
        def fit(self, parameters: Any, config: Any) -> Any:
            raise RuntimeError("no data today")

    running = federation(1, trainers=[Broken(0, ELEMENTS)], layout=Layout((Tensor("parameter0", (ELEMENTS,)),)))
    with pytest.raises(RuntimeError, match="no data today"):
        running.wait_rounds(1)
    running._watch.error = None  # it was expected, so the end of the fixture has nothing to say


def test_the_plugin_is_light() -> None:
    """pytest imports the plugin in every run, so the plugin imports nothing heavy."""
    code = (
        "import sys, pytest; before = set(sys.modules); import fedmote.testing.plugin; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == ["fedmote"]
