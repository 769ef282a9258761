# SPDX-License-Identifier: Apache-2.0
"""A server on this thread, its devices on another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from fedmote.server.server import Server
from fedmote_device import Device, run_many


def run_rounds(
    server: Server, devices: Sequence[Device], rounds: int, wait_s: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Run until round `rounds` is committed. Raise TimeoutError after `wait_s`.

    meanwhile: called on the devices' thread, between slices of their work.
    """
    done = threading.Event()

    def until() -> bool:
        meanwhile()
        return done.is_set()

    fleet = threading.Thread(target=run_many, args=(devices, until))
    fleet.start()
    try:
        asyncio.run(asyncio.wait_for(server.run(rounds), wait_s))
    finally:
        done.set()
        fleet.join()
