# SPDX-License-Identifier: Apache-2.0
"""The cohort of a task: which devices can answer, how many are needed, and how many are asked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np

from fedmote.model.layout import ROUNDING
from fedmote.tasks.base import TaskLimits
from fedmote.tasks.evaluate import Evaluate
from fedmote.tasks.release import Release
from fedmote.tasks.requests import Request
from fedmote.tasks.rollback import RollBack


def devices_needed(request: Request, limits: TaskLimits) -> int:
    """Return how many devices must be free before the task begins; 0: it asks no device."""
    if isinstance(request, RollBack | Release):
        return 0
    return max(1, limits.min_cohort, request.cohort)


def cohort_size(request: Request, limits: TaskLimits, free: int) -> int:
    """Return how many of the `free` devices are asked.

    The difference between the results of all devices, and of all but a few, would tell what those few said. So a cohort
    leaves out no device, or at least as many as make a cohort. Cohorts of one order, which contain each other, differ
    by at least as many.
    """
    least = max(1, limits.min_cohort)
    count = request.cohort or free
    if isinstance(request, Evaluate):
        if not request.cohort:
            count = max(devices_needed(request, limits), math.ceil(request.share * free - ROUNDING))
        if request.order:
            count = -(-count // least) * least
    return free if free - count < least else count


def choose_cohort(request: Request, limits: TaskLimits, free: list[str], draw: Callable[[], int]) -> set[str]:
    """Return the devices to ask. draw: makes a seed, unless the request has an order of its own."""
    count = cohort_size(request, limits, len(free))
    if isinstance(request, Evaluate) and request.order:
        return set(sorted(free, key=lambda device: zlib.crc32(f"{request.order}/{device}".encode()))[:count])
    order = np.random.default_rng(draw()).permutation(len(free))
    return {free[i] for i in order[:count]}
