# SPDX-License-Identifier: Apache-2.0
"""A Python model's parameters: as its client has them, and as the flat vector of float32 that is the shared model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmote_device._fedmote import lib

LONGEST_NAME: Final[int] = lib.FMB_MAX_TENSOR_NAME
"""Bytes of a tensor's longest name."""
_KINDS: Final = "fiub"  # NumPy's floats, integers and booleans
_LARGEST_INTEGER: Final = 2**24
"""float32 holds each integer up to this."""


@dataclass(frozen=True)
class Parameter:
    """One array of the client.

    path: its keys in the client's mappings, or its name alone. The shape and dtype are the client's.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        """The tensor's name in the layout."""
        return "/".join(self.path)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def describe(self) -> str:
        """Return name, dtype and shape, for messages."""
        return f"{self.name!r} ({self.dtype}, shape {self.shape})"


class ParameterTable:
    """The arrays that a client's first get_parameters() returns. Later ones must have the same names and shapes.

    given: a sequence of arrays, whose names are parameter0, parameter1, ..., or a mapping from names to arrays, as
    PyTorch's state_dict(). A mapping may hold mappings, as JAX has them; "/" joins the names. Booleans and integers
    travel as float32, and a mean of them is rounded. Raise TypeError or ValueError for what cannot be shared.
    """

    def __init__(self, given: object) -> None:
        self.named = isinstance(given, Mapping)
        self.entries: list[Parameter] = []
        for path, value in _arrays(given, "get_parameters()"):
            array = np.asarray(value)
            entry = Parameter(path, array.shape, array.dtype)
            self._check_entry(entry)
            self.entries.append(entry)
        if not self.entries:
            raise ValueError("get_parameters() returned no arrays; a model needs one at least")
        name, uses = Counter(entry.name for entry in self.entries).most_common(1)[0]
        if uses > 1:
            raise ValueError(f"get_parameters(): two arrays have the name {name!r}")

    @staticmethod
    def _check_entry(entry: Parameter) -> None:
        if entry.dtype.kind not in _KINDS:
            raise TypeError(f"get_parameters(): {entry.describe()} cannot be shared; float, integer and bool can")
        if entry.size == 0:
            raise ValueError(f"get_parameters(): {entry.describe()} is empty; leave it out")
        if not 1 <= len(entry.name.encode()) <= LONGEST_NAME or "\0" in entry.name:
            raise ValueError(
                f"get_parameters(): name {entry.name!r} must have 1 to {LONGEST_NAME} bytes, none of them 0"
            )

    @property
    def elements(self) -> int:
        """Number of elements of all arrays."""
        return sum(entry.size for entry in self.entries)

    def unflatten(self, vector: NDArray[np.float32]) -> Any:
        """Copy a flat vector out, as the client's own sequence (a list) or mapping (a dict), shapes and dtypes."""
        arrays: list[NDArray[Any]] = []
        tree: dict[str, Any] = {}
        at = 0
        for entry in self.entries:
            array = _as_dtype(vector[at : at + entry.size].reshape(entry.shape), entry.dtype)
            at += entry.size
            arrays.append(array)
            branch = tree
            for key in entry.path[:-1]:
                branch = branch.setdefault(key, {})
            branch[entry.path[-1]] = array
        return tree if self.named else arrays

    def flatten(self, given: object, vector: NDArray[np.float32], source: str) -> None:
        """Write the client's arrays into a flat vector. It is unchanged when they are refused.

        source: who returned them, for the message. Raise TypeError or ValueError for another name, order, shape or
        kind, and for values that float32 cannot hold.
        """
        if self.named != isinstance(given, Mapping):
            expected = "a mapping from names to arrays" if self.named else "a sequence of arrays"
            raise TypeError(f"{source}: expected {expected} as from get_parameters(), found {type(given).__name__}")
        found = {"/".join(path): value for path, value in _arrays(given, source)}
        names = {entry.name for entry in self.entries}
        missing, unknown = names - found.keys(), found.keys() - names
        if missing or unknown:
            raise ValueError(
                f"{source}: expected the {len(names)} arrays of get_parameters(), found {len(found)}; "
                f"missing: {_some(missing)}; unknown: {_some(unknown)}"
            )
        parts = [_checked(entry, found[entry.name], source) for entry in self.entries]
        vector[:] = np.concatenate(parts)


def _arrays(given: object, source: str, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the path and value of each array."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            if isinstance(value, Mapping):
                yield from _arrays(value, source, (*path, str(key)))
            else:
                yield (*path, str(key)), value
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        for i, value in enumerate(given):
            yield (f"parameter{i}",), value
    else:
        raise TypeError(f"{source}: expected a sequence of arrays or a mapping of them, found {type(given).__name__}")


def _as_dtype(array: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        return np.asarray(array >= 0.5)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.asarray(np.clip(np.rint(array.astype(np.float64)), limits.min, limits.max), dtype)
    return array.astype(dtype, copy=True)


def _checked(entry: Parameter, value: object, source: str) -> NDArray[np.float32]:
    """Return one array's elements as float32. Raise TypeError or ValueError if it does not fit."""
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"{source}: {entry.describe()} has become {array.dtype}")
    if array.shape != entry.shape:
        raise ValueError(f"{source}: {entry.describe()} has become an array of shape {array.shape}")
    if array.dtype.kind in "iu" and np.abs(array.astype(np.float64)).max() > _LARGEST_INTEGER:
        raise ValueError(f"{source}: {entry.describe()} has an integer over 2**24, which float32 cannot hold")
    with np.errstate(over="ignore"):
        flat = np.ravel(array).astype(np.float32)
    if not np.isfinite(flat).all():
        raise ValueError(f"{source}: {entry.describe()} has values that are not finite as float32")
    return flat


def _some(names: set[str]) -> str:
    """Name a few."""
    first = sorted(names)[:3]
    return ", ".join(map(repr, first)) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if first else "none"
