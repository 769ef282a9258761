# SPDX-License-Identifier: Apache-2.0
"""What a device trains with: a network in C, or a Python object."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Parameters = Any
"""A list of arrays, or a mapping from names to arrays as PyTorch's state_dict(). See ParameterTable."""
Config = dict[str, float | int]
"""What the plan says: round (also as server_round, Flower's word), task, epochs, batch_size, max_steps, learning_rate,
prox_mu, seed."""
FitStep = tuple[Parameters, int, Mapping[str, float]]
"""What a step of fit comes to: new parameters, number of examples, metrics."""


class NumPyClient(Protocol):
    """The shape of a Python object that a device trains with, as Flower's class of that name has it."""

    def get_parameters(self, config: Config) -> Parameters:
        """Return the present parameters: a list of arrays, or a mapping from names to arrays.

        Names, shapes and dtypes of the first call are the model's. A list's names are parameter0, parameter1, ...
        """
        ...

    def fit(self, parameters: Parameters, config: Config) -> FitStep | Iterator[FitStep]:
        """Train from `parameters` and return (new parameters, examples, metrics).

        The parameters are as get_parameters() returned them, in and out. examples: 1 or more. The metrics "loss" (mean
        over the examples), "steps" and "planned_steps" are reported if they are there.

        It may instead be a generator that yields such a triple after each step. Then a closing notice ends it after
        the present step, and the last triple counts as a partial update.
        """
        ...

    def evaluate(self, parameters: Parameters, config: Config) -> tuple[float, int, Mapping[str, float]]:
        """Return (mean loss, examples, metrics). The metric "accuracy" is reported if it is there."""
        ...


class Queryable(Protocol):
    """What a NumPyClient that answers queries has in addition."""

    def query(self, field: int, low: float, high: float, bins: int) -> tuple[Sequence[int], float]:
        """Return (values in each of `bins` bins of equal width over [low, high), their sum).

        Values outside the range count as the nearer of its ends. field: field_number() of its name. Raise KeyError if
        there is no such field.
        """
        ...


def field_number(name: str) -> int:
    """Return the number of a query's field on the wire: the CRC-32 of its name."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class CTrainer:
    """Train dense layers in C.

    layers: widths, features first: (64, 32, 10). x: float32 [examples, features]. y: labels [examples].
    Queries may ask for the fields "label", "feature0", "feature1", ...
    """

    layers: Sequence[int]
    x: NDArray[np.float32]
    y: NDArray[np.integer[Any]]

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return examples and labels as C reads them. Raise ValueError if they do not fit the layers."""
        widths = tuple(self.layers)
        if not 2 <= len(widths) <= 5:
            raise ValueError(f"layers {widths}: expected 2 to 5 widths")
        x = np.ascontiguousarray(self.x, np.float32)
        y = np.asarray(self.y)
        if x.ndim != 2 or x.shape[1] != widths[0] or y.shape != (len(x),) or len(x) == 0:
            raise ValueError(f"data of shapes {x.shape} and {y.shape} do not fit a network of {widths[0]} features")
        if not 0 <= int(y.min()) <= int(y.max()) < min(widths[-1], 256):
            raise ValueError(f"labels {int(y.min())} to {int(y.max())} do not fit {widths[-1]} classes")
        return x, np.ascontiguousarray(y, np.uint8)
