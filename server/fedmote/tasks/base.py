# SPDX-License-Identifier: Apache-2.0
"""What all tasks share: limits, results, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from fedmote.errors import TaskError

Result = dict[str, Any]
"""What a task releases: numbers and lists of them, as JSON takes them."""

LARGEST = 1e38  # of a range's ends, so that float32 holds also what a query adds on either side


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Bounds on tasks.

    min_cohort: devices whose results make an aggregate; with fewer, nothing is released. max_per_device: examples, or
    values, that one device adds at most: all that it says is scaled down to that many. answer_s: time to answer a plan.
    wait_s: time until a task begins, between rounds.
    """

    min_cohort: int = 10
    max_per_device: int = 1000
    answer_s: float = 60.0
    wait_s: float = 3600.0


def check_types(request: object) -> None:
    """Refuse what came of anybody's JSON, and numbers that neither the wire nor the database takes."""
    for name, kind in get_type_hints(type(request)).items():
        value = getattr(request, name)
        number = isinstance(value, int) and not isinstance(value, bool)
        if kind is int and not (number and abs(value) < 1 << 31):
            raise TaskError(f"{name} {value!r}: a whole number below {1 << 31}")
        if kind is float and not (number or isinstance(value, float)):
            raise TaskError(f"{name} {value!r}: a number")
        if kind is str and not (isinstance(value, str) and value.isprintable()):
            raise TaskError(f"{name} {value!r}: printable text")
        if name in ("version", "cohort", "order", "against") and value < 0:
            raise TaskError(f"{name} {value}: 0 or more")


def check_range(low: float, high: float) -> None:
    """Refuse a range that is empty, reversed or beyond what float32 holds."""
    if not (-LARGEST <= low < high <= LARGEST and np.float32(low) < np.float32(high)):
        raise TaskError(f"range {low} to {high}: two numbers of at most {LARGEST:g}, the lower first")
