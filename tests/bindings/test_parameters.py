# SPDX-License-Identifier: Apache-2.0
"""A client's arrays as one flat vector and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmote_device.parameters import ParameterTable

GIVEN: dict[str, Any] = {
    "conv": {"weight": np.arange(6, dtype=np.float64).reshape(2, 3), "bias": np.zeros(2, np.float16)},
    "seen": np.array(7, np.int64),  # as BatchNorm's counter: without a dimension
    "used": np.array([True, False]),
}


def test_a_mapping_comes_back_as_it_went_in() -> None:
    table = ParameterTable(GIVEN)
    assert [entry.name for entry in table.entries] == ["conv/weight", "conv/bias", "seen", "used"]
    vector = np.zeros(table.elements, np.float32)
    table.flatten(GIVEN, vector, "fit()")
    np.testing.assert_array_equal(vector, [0, 1, 2, 3, 4, 5, 0, 0, 7, 1, 0])
    back = table.unflatten(vector)
    for there, here in (
        (back["conv"]["weight"], GIVEN["conv"]["weight"]),
        (back["conv"]["bias"], GIVEN["conv"]["bias"]),
        (back["seen"], GIVEN["seen"]),
        (back["used"], GIVEN["used"]),
    ):
        assert isinstance(there, np.ndarray) and there.dtype == here.dtype
        np.testing.assert_array_equal(there, here)


def test_a_mean_of_counters_is_rounded() -> None:
    table = ParameterTable([np.zeros(2, np.int64)])
    np.testing.assert_array_equal(table.unflatten(np.array([2.6, -1.4], np.float32))[0], [3, -1])


def test_names_and_not_their_order_say_what_is_what() -> None:
    table = ParameterTable({"a": np.zeros(2), "b": np.zeros(2)})
    vector = np.zeros(4, np.float32)
    table.flatten({"b": np.full(2, 2.0), "a": np.full(2, 1.0)}, vector, "fit()")
    np.testing.assert_array_equal(vector, [1, 1, 2, 2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no arrays"),
        (3.0, "expected a sequence of arrays or a mapping"),
        ([np.zeros((2, 0))], r"'parameter0' \(float64, shape \(2, 0\)\) is empty"),
        ([np.zeros(2, complex)], "complex128.* cannot be shared"),
        (["text"], "cannot be shared"),
        ({"x" * 256: np.zeros(1)}, "1 to 255 bytes"),
        ({"a/b": np.zeros(1), "a": {"b": np.zeros(1)}}, "two arrays have the name 'a/b'"),
    ],
)
def test_what_cannot_be_shared_is_refused(given: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ParameterTable(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"w": np.zeros((3, 2)), "n": 0}, r"'w' \(float32, shape \(2, 3\)\) has become an array of shape \(3, 2\)"),
        ({"w": np.zeros((2, 3))}, "missing: 'n'; unknown: none"),
        ({"w": np.zeros((2, 3)), "n": 0, "v": 1}, "missing: none; unknown: 'v'"),
        ({"w": np.zeros((2, 3)), "n": 2**31 + 1}, "integer over 2\\*\\*24"),
        ({"w": np.full((2, 3), 1e39), "n": 0}, "'w'.*not finite"),
        ({"w": np.full((2, 3), np.nan), "n": 0}, "'w'.*not finite"),
        ({"w": np.full((2, 3), 1j), "n": 0}, "'w'.*has become complex128"),
        ([np.zeros((2, 3)), 0], "expected a mapping from names to arrays"),
    ],
)
def test_an_update_that_does_not_fit_is_refused_and_changes_nothing(given: object, message: str) -> None:
    table = ParameterTable({"w": np.zeros((2, 3), np.float32), "n": np.array(0)})
    vector = np.full(7, 5, np.float32)
    with pytest.raises((TypeError, ValueError), match=message):
        table.flatten(given, vector, "fit()")
    assert (vector == 5).all()
