# SPDX-License-Identifier: Apache-2.0
"""FedAvg and FedNova against their formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova
from fedmote.learning.update import Update


def update(values: np.ndarray, examples: int, **changes: Any) -> Update:
    """An update of float32 weights in chunks of 16."""
    fields: dict[str, Any] = {
        "device": "d", "examples": examples, "steps": 1, "planned_steps": 1, "loss": 0.0, "encoding": 0,
        "delta": False, "chunk_elements": 16, "data": bytearray(values.astype("<f4").tobytes()), "scales": None,
        "received": None, "ranges": None,
    }  # fmt: skip
    return Update(**{**fields, **changes})


def coverage(rng: np.random.Generator, elements: int) -> tuple[np.ndarray, dict[str, object]]:
    """Return which elements an update covers (all, one tensor, or a cut-off upload), and in which form."""
    covered = np.ones(elements, bool)
    kind = rng.integers(3)
    if kind == 1:  # one tensor only
        first = int(rng.integers(elements))
        count = int(rng.integers(1, elements - first + 1))
        covered[:] = False
        covered[first : first + count] = True
        return covered, {"ranges": np.array([[first, count]], np.uint32)}
    if kind == 2:  # cut off
        received = rng.integers(0, 2, -(-elements // 16)).astype(np.uint8)
        return np.repeat(received, 16)[:elements].astype(bool), {"received": bytearray(received.tobytes())}
    return covered, {}


@settings(max_examples=50)
@given(st.integers(1, 300), st.lists(st.integers(1, 10_000), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_full_updates_give_the_weighted_mean(elements: int, examples: list[int], seed: int) -> None:
    """sum(n_k w_k) / sum(n_k), to 1e-6 relative."""
    rng = np.random.default_rng(seed)
    models = [rng.normal(size=elements).astype(np.float32) for _ in examples]
    strategy = FedAvg()
    accumulator = strategy.begin(np.zeros(elements, np.float32))
    for n, model in zip(examples, models, strict=True):
        assert strategy.fold(accumulator, update(model, n))
    wanted = np.average(np.array(models, np.float64), axis=0, weights=examples)
    scale = np.average(np.abs(np.array(models, np.float64)), axis=0, weights=examples)
    assert np.all(np.abs(strategy.finish(accumulator) - wanted) <= 1e-6 * scale)


@settings(max_examples=50)
@given(st.integers(2, 200), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_each_element_is_the_mean_of_those_who_covered_it(elements: int, devices: int, seed: int) -> None:
    """Each element is the mean of the updates that cover it, with full, partial and cut-off ones in one round."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=elements).astype(np.float32)
    strategy = FedAvg()
    accumulator = strategy.begin(base)
    top, bottom = np.zeros(elements), np.zeros(elements)
    for _ in range(devices):
        model = rng.normal(size=elements).astype(np.float32)
        n = int(rng.integers(1, 100))
        covered, changes = coverage(rng, elements)
        values = model[covered] if "ranges" in changes else model
        assert strategy.fold(accumulator, update(values, n, **changes))
        top[covered] += n * model[covered].astype(np.float64)
        bottom[covered] += n
    wanted = np.where(bottom > 0, top / np.maximum(bottom, 1), base)
    assert np.allclose(strategy.finish(accumulator), wanted, rtol=1e-6, atol=1e-6)


@settings(max_examples=50)
@given(st.integers(2, 200), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_fednova_element_by_element(elements: int, devices: int, seed: int) -> None:
    """x + t sum(n d / t_i) / sum(n) over those who covered it, t = sum(n t_i) / sum(n) over all; weights and deltas.

    The shares add up to 2 at most.
    """
    rng = np.random.default_rng(seed)
    base = rng.normal(size=elements).astype(np.float32)
    strategy = FedNova()
    accumulator = strategy.begin(base)
    top, bottom, pull = np.zeros(elements), np.zeros(elements), np.zeros(elements)
    examples = steps = 0
    for _ in range(devices):
        difference = rng.normal(size=elements).astype(np.float32)
        n, t = int(rng.integers(1, 100)), int(rng.integers(1, 30))
        covered, changes = coverage(rng, elements)
        delta = bool(rng.integers(2))
        sent = difference if delta else base + difference
        sent = sent[covered] if "ranges" in changes else sent
        assert strategy.fold(accumulator, update(sent, n, steps=t, delta=delta, **changes))
        top[covered] += n / t * difference[covered].astype(np.float64)
        bottom[covered] += n
        pull[covered] += n / t
        examples, steps = examples + n, steps + n * t
    scale = np.minimum(steps / examples / np.maximum(bottom, 1), 2 / np.where(pull > 0, pull, 1))
    wanted = base + scale * top
    assert np.allclose(strategy.finish(accumulator), wanted, rtol=1e-5, atol=1e-5)


def test_fednova_with_equal_steps_is_fedavg() -> None:
    """With equal steps FedNova equals FedAvg."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=40).astype(np.float32)
    models = []
    for strategy in (FedAvg(), FedNova()):
        accumulator = strategy.begin(base)
        for n in (3, 50, 7):
            values = np.random.default_rng(n).normal(size=40).astype(np.float32)
            assert strategy.fold(accumulator, update(values, n, steps=5))
        models.append(strategy.finish(accumulator))
    assert np.allclose(models[0], models[1], rtol=1e-6, atol=1e-6)


def test_nobody_spoke() -> None:
    """Without updates the model stays the same."""
    base = np.arange(5, dtype=np.float32)
    for strategy in (FedAvg(), FedNova()):
        assert np.array_equal(strategy.finish(strategy.begin(base)), base)


def test_not_finite_is_refused_and_changes_nothing() -> None:
    """An update with a NaN is refused and does not change the others."""
    strategy = FedAvg()
    accumulator = strategy.begin(np.zeros(20, np.float32))
    assert strategy.fold(accumulator, update(np.ones(20), 3))
    bad = np.ones(20)
    bad[7] = np.nan
    assert not strategy.fold(accumulator, update(bad, 5))
    assert np.array_equal(strategy.finish(accumulator), np.ones(20, np.float32))


def test_deltas_add_to_the_base() -> None:
    """A delta of 0.5 on a base of 2 is 2.5."""
    strategy = FedAvg()
    accumulator = strategy.begin(np.full(20, 2, np.float32))
    assert strategy.fold(accumulator, update(np.full(20, 0.5), 3, delta=True))
    assert np.array_equal(strategy.finish(accumulator), np.full(20, 2.5, np.float32))


def test_fednova_goes_no_further_than_twice_what_devices_found() -> None:
    """The model's step stays bounded for 2^32 - 1 claimed steps, 1e6 examples and the largest float32 values."""
    for examples in (1, 40, 1_000_000):
        strategy = FedNova()
        accumulator = strategy.begin(np.zeros(20, np.float32))
        for _ in range(9):
            assert strategy.fold(accumulator, update(np.full(20, 0.01), 40, steps=25))
        assert strategy.fold(accumulator, update(np.zeros(20), examples, steps=2**32 - 1, planned_steps=1))
        assert np.abs(strategy.finish(accumulator)).max() <= 0.02
    strategy = FedNova()
    accumulator = strategy.begin(np.zeros(20, np.float32))
    largest = float(np.finfo(np.float32).max)
    assert strategy.fold(accumulator, update(np.full(20, largest), 1))
    assert strategy.fold(accumulator, update(np.full(20, largest), 1, steps=7))
    assert np.isfinite(strategy.finish(accumulator)).all()


def test_fednova_weighs_by_what_a_device_has() -> None:
    """An upload cut off in its first epoch, after 8 of 80 examples, has the full weight of its direction."""
    strategy = FedNova()
    accumulator = strategy.begin(np.zeros(20, np.float32))
    assert strategy.fold(accumulator, update(np.full(20, 0.10), 80, steps=10))
    assert strategy.fold(accumulator, update(np.full(20, -0.01), 8, steps=1, planned_steps=10, local_examples=80))
    assert np.abs(strategy.finish(accumulator)).max() < 1e-8


def test_not_finite_leaves_fednova_as_it_was() -> None:
    """The examples and steps of a refused update do not count either."""
    strategy = FedNova()
    accumulator = strategy.begin(np.zeros(20, np.float32))
    assert strategy.fold(accumulator, update(np.ones(20), 3, steps=2))
    assert not strategy.fold(accumulator, update(np.full(20, np.inf), 500, steps=900))
    assert np.array_equal(strategy.finish(accumulator), np.ones(20, np.float32))


def test_what_is_partial() -> None:
    """An update is partial if it has fewer steps than planned, or if chunks are missing."""
    assert update(np.ones(20), 3, steps=1, planned_steps=2).partial
    assert update(np.ones(20), 3, received=bytearray(b"\1\0")).partial
    assert not update(np.ones(20), 3, steps=2, planned_steps=2).partial
