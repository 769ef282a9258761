# SPDX-License-Identifier: Apache-2.0
"""Many devices in one thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fedmote_device._fedmote import ffi, lib

if TYPE_CHECKING:
    from fedmote_device.device import Device


def run_many(
    devices: Sequence[Device], until: Callable[[], bool], timeout_s: float | None = None, slice_ms: int = 2
) -> None:
    """Run many devices in this thread until `until()` is true. It is asked every `slice_ms`.

    Raise TimeoutError after `timeout_s`. Raise an exception of a Python trainer, after its device has withdrawn.
    """
    pointers = ffi.new("fmb_device_t *[]", [d._c for d in devices])
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    while not until():
        lib.fmb_fleet_run(pointers, len(devices), slice_ms)
        for device in devices:
            device._raise_error()
        if time.monotonic() >= deadline and not until():
            raise TimeoutError(f"not done after {timeout_s} s; devices are {[d.state for d in devices][:10]}")
