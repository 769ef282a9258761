# SPDX-License-Identifier: Apache-2.0
"""A serial cable without hardware: two connected pseudo-terminals, so that each end has a path to open."""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
import tty

from fedmote.faults.fault import DelayLine, Fault, wait_s

_PIECE = 4096
_MOST_WAITING = 65536  # unread bytes; more are lost, as on a real line


class Cable:
    """Carries bytes between `ends`, two paths, while the context lasts.

    fault: called with the bytes that enter and the end, 0 or 1; returns the bytes that leave. None: a perfect cable.
    delay: seconds. bandwidth: bytes per second. loose: end 1 has no name; plug() joins it to a descriptor.
    """

    def __init__(
        self, fault: Fault | None = None, *, delay: float = 0.0, bandwidth: float = math.inf, loose: bool = False
    ) -> None:
        self._fault = fault
        self._delay_lines = [DelayLine(delay, bandwidth), DelayLine(delay, bandwidth)]  # by receiving end
        self._waiting = [b"", b""]
        pairs = [os.openpty() for _ in range(1 if loose else 2)]
        self._slaves = [slave for _, slave in pairs]  # kept open, so that others can open and close an end at any time
        for master, slave in pairs:
            tty.setraw(slave)
            os.set_blocking(master, False)
        self._fds = [master for master, _ in pairs] + [-1] * (2 - len(pairs))
        self.ends = (os.ttyname(self._slaves[0]), "" if loose else os.ttyname(self._slaves[1]))
        self._wake_read, self._wake_write = os.pipe()
        self._lock = threading.Lock()
        self._plugged: list[int] = []
        self._closing = False
        self._thread = threading.Thread(target=self._carry, daemon=True, name="cable")

    def __enter__(self) -> Cable:
        """Start to carry bytes."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and close both ends."""
        self._closing = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        for fd in (*self._fds, *self._slaves, *self._plugged, self._wake_read, self._wake_write):
            if fd >= 0:
                os.close(fd)

    def plug(self, fd: int) -> None:
        """Connect end 1 to a descriptor. The cable owns it and closes it when its other side closes."""
        os.set_blocking(fd, False)
        with self._lock:
            self._plugged.append(fd)
        os.write(self._wake_write, b"x")

    def _take_plugged(self) -> None:
        """Connect the waiting descriptor; bytes in transit to the former one are lost."""
        with self._lock:
            plugged, self._plugged = self._plugged, []
        for fd in plugged:
            self._unplug()
            self._fds[1] = fd

    def _unplug(self) -> None:
        if self._fds[1] >= 0:
            os.close(self._fds[1])
        self._fds[1] = -1
        self._waiting[1] = b""
        self._delay_lines[1].clear()

    def _carry(self) -> None:
        while True:
            readable, writable = self._wait()
            if self._closing:
                return
            for end, fd in enumerate(self._fds):
                if fd in readable:
                    self._read(end)
            for end, fd in enumerate(self._fds):
                self._release(end)
                if fd in writable and self._fds[end] == fd:
                    self._write(end)
            if self._wake_read in readable:
                os.read(self._wake_read, _PIECE)
                self._take_plugged()

    def _wait(self) -> tuple[list[int], list[int]]:
        """Wait for work; return the descriptors that can be read and those that can be written."""
        readers = [fd for fd in self._fds if fd >= 0]
        writers = [fd for fd, data in zip(self._fds, self._waiting, strict=True) if data and fd >= 0]
        timeout = wait_s(self._delay_lines, time.monotonic())
        readable, writable, _ = select.select([*readers, self._wake_read], writers, [], timeout)
        return readable, writable

    def _read(self, end: int) -> None:
        try:
            data = os.read(self._fds[end], _PIECE)
        except OSError:  # the machine at the loose end is gone
            data = b""
        if not data:
            self._unplug()
        elif self._fault is not None:
            data = self._fault(data, end)
        other = 1 - end
        room = _MOST_WAITING - len(self._waiting[other]) - self._delay_lines[other].held
        if self._fds[other] >= 0:
            self._delay_lines[other].push(data[: max(0, room)], time.monotonic())

    def _release(self, end: int) -> None:
        self._waiting[end] += self._delay_lines[end].pop(time.monotonic())

    def _write(self, end: int) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._waiting[end] = self._waiting[end][os.write(self._fds[end], self._waiting[end]) :]
            except (BrokenPipeError, ConnectionResetError):
                self._unplug()
