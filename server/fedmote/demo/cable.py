# SPDX-License-Identifier: Apache-2.0
"""A serial cable without hardware: two pseudo-terminals joined, so that each end has a name to open."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Callable

_PIECE = 4096
_MOST_WAITING = 65536  # bytes that nobody reads; what comes on top is lost, as on a line


class Cable:
    """Carries bytes between `ends`, two paths, from the start of the context to its end.

    fault: is given what goes in and at which end (0 or 1), and returns what comes out; None: a good cable.
    """

    def __init__(self, fault: Callable[[bytes, int], bytes] | None = None) -> None:
        self._fault = fault
        pairs = [os.openpty(), os.openpty()]
        self._masters = [master for master, _ in pairs]
        self._slaves = [slave for _, slave in pairs]  # kept open, so that an end may be opened and closed at will
        for master, slave in pairs:
            tty.setraw(slave)
            os.set_blocking(master, False)
        self.ends = (os.ttyname(self._slaves[0]), os.ttyname(self._slaves[1]))
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True, name="cable")

    def __enter__(self) -> Cable:
        """Begin to carry."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and close both ends."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        for fd in (*self._masters, *self._slaves, self._wake_read, self._wake_write):
            os.close(fd)

    def _carry(self) -> None:
        waiting = {self._masters[1]: b"", self._masters[0]: b""}
        across = {self._masters[0]: self._masters[1], self._masters[1]: self._masters[0]}
        while True:
            writers = [fd for fd, data in waiting.items() if data]
            readable, writable, _ = select.select([*self._masters, self._wake_read], writers, [])
            if self._wake_read in readable:
                return
            for fd in readable:
                data = os.read(fd, _PIECE)
                if self._fault is not None:
                    data = self._fault(data, self._masters.index(fd))
                other = across[fd]
                waiting[other] += data[: _MOST_WAITING - len(waiting[other])]
            for fd in writable:
                with contextlib.suppress(BlockingIOError):
                    waiting[fd] = waiting[fd][os.write(fd, waiting[fd]) :]
