# SPDX-License-Identifier: Apache-2.0
"""The native kernels against plain NumPy in float64."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fold_input import Chunks
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmote_device import kernels

Floats = NDArray[np.float32]


def fold(total: Any, weight: Any, base: Any, example_weight: float, **chunks: Any) -> int:
    return kernels.fold(total, weight, base, Chunks(**chunks), example_weight)


@dataclass
class Update:
    """One update in the form that fold() takes, and what it means: element, value."""

    elements: int
    arguments: dict[str, Any]
    index: NDArray[np.int64]
    value: NDArray[np.float64]


def make_update(
    seed: int, elements: int, chunk_elements: int, encoding: int, delta: bool, partial: bool, gaps: bool
) -> Update:
    rng = np.random.default_rng(seed)
    ranges = None
    index = np.arange(elements)
    if partial:
        chosen = rng.random(elements) < 0.6
        chosen[rng.integers(elements)] = True
        index = np.flatnonzero(chosen)
        starts = index[np.flatnonzero(np.diff(index, prepend=-2) != 1)]
        ends = index[np.flatnonzero(np.diff(index, append=elements + 1) != 1)] + 1
        ranges = np.stack([starts, ends - starts], axis=1).astype(np.uint32)
    chunk = np.arange(index.size) // chunk_elements
    chunks = int(chunk[-1]) + 1
    received = (rng.random(chunks) < 0.5).astype(np.uint8) if gaps else None
    base = rng.standard_normal(elements).astype(np.float32) if delta else None
    scales = rng.random(chunks).astype(np.float32) if encoding == kernels.INT8 else None
    if scales is None:
        codes: NDArray[Any] = rng.standard_normal(index.size).astype("<f4")
        value = codes.astype(np.float64)
    else:
        codes = rng.integers(-127, 128, index.size, dtype=np.int8)
        value = (codes.astype(np.float32) * scales[chunk]).astype(np.float64)
    if base is not None:
        value = base[index].astype(np.float64) + value
    kept = np.ones(index.size, bool) if received is None else received[chunk] != 0
    arguments = {
        "base": base,
        "data": codes.tobytes(),
        "encoding": encoding,
        "scales": scales,
        "chunk_elements": chunk_elements,
        "received": received,
        "ranges": ranges,
        "example_weight": float(rng.integers(1, 1000)),
    }
    return Update(elements, arguments, index[kept], value[kept])


updates = st.builds(
    make_update,
    seed=st.integers(0, 2**32 - 1),
    elements=st.integers(1, 3000),
    chunk_elements=st.integers(1, 1100),
    encoding=st.sampled_from([kernels.FLOAT32, kernels.INT8]),
    delta=st.booleans(),
    partial=st.booleans(),
    gaps=st.booleans(),
)


def arrays(elements: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(elements)
    return rng.standard_normal(elements), rng.random(elements)


@given(updates)
def test_fold_equals_numpy(update: Update) -> None:
    total, weight = arrays(update.elements)
    expected_total, expected_weight = total.copy(), weight.copy()
    w = update.arguments["example_weight"]
    expected_total[update.index] += w * update.value
    expected_weight[update.index] += w
    assert fold(total, weight, **update.arguments) == kernels.FOLDED
    np.testing.assert_array_equal(total, expected_total)
    np.testing.assert_array_equal(weight, expected_weight)


@given(updates)
def test_fold_without_weights_adds_the_same_sum(update: Update) -> None:
    total, weight = arrays(update.elements)
    alone = total.copy()
    assert fold(total, weight, **update.arguments) == kernels.FOLDED
    assert fold(alone, None, **update.arguments) == kernels.FOLDED
    np.testing.assert_array_equal(alone, total)


@given(updates, st.integers(1, 7))
def test_fold_takes_data_of_any_alignment(update: Update, shift: int) -> None:
    total, weight = arrays(update.elements)
    shifted_total, shifted_weight = total.copy(), weight.copy()
    data = update.arguments["data"]
    fold(total, weight, **update.arguments)
    moved = memoryview(bytes(shift) + data)[shift:]
    assert fold(shifted_total, shifted_weight, **(update.arguments | {"data": moved})) == kernels.FOLDED
    np.testing.assert_array_equal(shifted_total, total)


@given(updates, st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0))
def test_non_finite_updates_leave_the_arrays_untouched(update: Update, poison: float, where: int) -> None:
    arguments = dict(update.arguments)
    if arguments["encoding"] == kernels.FLOAT32:
        codes = np.frombuffer(arguments["data"], "<f4").copy()
        position = where % codes.size
        codes[position] = poison
        arguments["data"] = codes.tobytes()
        chunk = position // arguments["chunk_elements"]
    else:
        arguments["scales"] = arguments["scales"].copy()
        chunk = where % arguments["scales"].size
        arguments["scales"][chunk] = poison
    if arguments["received"] is not None:
        arguments["received"] = arguments["received"].copy()
        arguments["received"][chunk] = 1
    total, weight = arrays(update.elements)
    before = total.copy(), weight.copy()
    assert fold(total, weight, **arguments) == kernels.NON_FINITE
    np.testing.assert_array_equal(total, before[0])
    np.testing.assert_array_equal(weight, before[1])


def test_garbage_in_a_gap_does_not_matter() -> None:
    data = np.array([1, 2, np.nan, 4], "<f4").tobytes()
    total, weight = np.zeros(4), np.zeros(4)
    chunks = Chunks(data, kernels.FLOAT32, None, 2, bytearray([1, 0]), None)
    assert kernels.fold(total, weight, None, chunks, 3.0) == kernels.FOLDED
    assert total.tolist() == [3, 6, 0, 0]
    assert weight.tolist() == [3, 3, 0, 0]


def test_a_delta_that_leaves_float32_is_refused() -> None:
    largest = np.finfo(np.float32).max
    total, weight = np.zeros(1), np.zeros(1)
    base = np.array([largest], np.float32)
    chunks = Chunks(base.tobytes(), kernels.FLOAT32, None, 1, None, None)
    assert kernels.fold(total, weight, base, chunks, 1.0) == kernels.NON_FINITE
    assert total[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"data": bytes(39)},
        {"data": bytes(44)},
        {"chunk_elements": 0},
        {"encoding": 1},
        {"encoding": 2, "data": bytes(10), "scales": None},
        {"encoding": 2, "data": bytes(10), "scales": np.ones(4, np.float32)},
        {"encoding": 2, "data": bytes(10), "scales": np.ones(3, np.float32), "received": bytearray(2)},
        {"received": bytearray(2)},
        {"received": bytearray(4)},
        {"example_weight": 0.0},
        {"example_weight": -1.0},
        {"example_weight": float("nan")},
        {"example_weight": float("inf")},
        {"ranges": np.array([[0, 11]], np.uint32), "data": bytes(44)},
        {"ranges": np.array([[4, 6], [3, 4]], np.uint32)},
        {"ranges": np.array([[0, 6], [5, 4]], np.uint32)},
        {"ranges": np.array([[0, 10], [10, 0]], np.uint32)},
        {"ranges": np.array([[11, 10]], np.uint32)},
        {"ranges": np.array([[2**32 - 1, 2**32 - 1]], np.uint32)},
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    total, weight = np.ones(10), np.ones(10)
    arguments: dict[str, Any] = {
        "base": None,
        "data": bytes(40),
        "encoding": 0,
        "scales": None,
        "chunk_elements": 4,
        "received": None,
        "ranges": None,
        "example_weight": 1.0,
    }
    assert fold(total, weight, **(arguments | change)) == kernels.BAD_SIZES
    assert total.tolist() == [1.0] * 10
    assert weight.tolist() == [1.0] * 10
    assert fold(total, weight, **arguments) == kernels.FOLDED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total", np.zeros(4, np.float32)),
        ("weight", np.zeros(3)),
        ("base", np.zeros(4)),
        ("scales", np.zeros(1)),
        ("ranges", np.zeros((1, 2), np.int64)),
    ],
)
def test_arrays_of_the_wrong_type_are_the_callers_mistake(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {
        "total": np.zeros(4),
        "weight": np.zeros(4),
        "base": None,
        "data": bytes(16),
        "encoding": 0,
        "scales": None,
        "chunk_elements": 4,
        "received": None,
        "ranges": None,
        "example_weight": 1.0,
    }
    with pytest.raises(TypeError):
        fold(**(arguments | {name: value}))


@given(st.integers(0, 2**32 - 1), st.integers(1, 2000), st.sampled_from([0.0, 2.5]))
def test_finish_is_the_mean_where_anyone_spoke(seed: int, elements: int, whole: float) -> None:
    rng = np.random.default_rng(seed)
    total = rng.standard_normal(elements)
    weight = np.where(rng.random(elements) < 0.5, rng.random(elements) + 0.1, 0.0)
    base = rng.standard_normal(elements).astype(np.float32)
    spoken = weight + whole > 0
    expected = base.copy()
    expected[spoken] = (total[spoken] / (weight + whole)[spoken]).astype(np.float32)
    np.testing.assert_array_equal(kernels.finish(total, weight, base, whole), expected)


def test_finish_stays_finite() -> None:
    largest = float(np.finfo(np.float32).max)
    total = np.array([largest * 1.5, -largest * 1.5])
    out = kernels.finish(total, np.ones(2), np.zeros(2, np.float32))
    assert out.tolist() == [largest, -largest]


def test_finish_wants_fitting_arrays() -> None:
    with pytest.raises(ValueError, match="one size"):
        kernels.finish(np.zeros(2), np.zeros(2), np.zeros(3, np.float32))
    with pytest.raises(TypeError):
        kernels.finish(np.zeros(2), np.zeros(2), np.zeros(2))  # type: ignore[arg-type]  # float64 on purpose


@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_crc32_is_zlibs(data: bytes, value: int) -> None:
    assert kernels.crc32(data, value) == zlib.crc32(data, value)


@pytest.mark.parametrize("size", [0, 7, 8, 63, 64, 65, 127, 128, 4095, 4096, 1 << 20])
def test_crc32_of_long_data_continues(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert kernels.crc32(data) == zlib.crc32(data)
    cut = size // 3
    assert kernels.crc32(data[cut:], kernels.crc32(data[:cut])) == zlib.crc32(data)


def test_all_finite() -> None:
    values = np.ones(1000, np.float32)
    assert kernels.all_finite(values)
    values[999] = np.nan
    assert not kernels.all_finite(values)
    with pytest.raises(TypeError):
        kernels.all_finite(np.ones(3))  # type: ignore[arg-type]  # float64 on purpose


@given(updates)
def test_measure_is_the_distance_to_the_base(update: Update) -> None:
    """Squares and number of covered elements, for weights and deltas, in every encoding and with gaps."""
    names = ("data", "encoding", "scales", "chunk_elements", "received", "ranges")
    chunks = Chunks(**{name: update.arguments[name] for name in names})
    added_to = update.arguments["base"]  # of a delta
    base = np.linspace(-1, 1, update.elements).astype(np.float32) if added_to is None else added_to
    change = kernels.measure(base, added_to is not None, chunks)
    assert change is not None
    difference = update.value - base[update.index].astype(np.float64)
    assert change[0] == pytest.approx((difference**2).sum(), rel=1e-5, abs=1e-9)
    assert change[1] == update.index.size


def test_measure_of_what_is_not_finite() -> None:
    base = np.zeros(2, np.float32)
    for value in (np.nan, np.inf, -np.inf):
        data = np.array([1.0, value], np.float32).tobytes()
        change = kernels.measure(base, False, Chunks(data, kernels.FLOAT32, None, 2, None, None))
        assert change is not None and not np.isfinite(change[0])
    assert kernels.measure(base, False, Chunks(b"1234", kernels.FLOAT32, None, 2, None, None)) is None
