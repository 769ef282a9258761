# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy in front of a broker: cuts, stalls, delay and bandwidth. It does not parse the bytes."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from fedmote.faults.fault import DelayLine, Fault, wait_s

_PIECE = 65536
_MOST_HELD = 65536  # bytes held; then the sender must wait, as on any slow network


@dataclass(eq=False)
class _Side:
    """One end of a connection, and the bytes in transit to it."""

    socket: socket.socket
    end: int  # 0: the broker, 1: a device, as on a cable
    delay_line: DelayLine
    waiting: bytes = b""
    other: _Side = field(init=False)


class TcpProxy:
    """Listens at `url` and forwards to host:port, while the context lasts.

    fault: called with bytes and the end where they entered, 0 for the broker's; returns the bytes to forward. When it
    drops some, call cut(): a TCP connection never loses bytes and stays open.
    """

    def __init__(
        self, host: str, port: int, fault: Fault | None = None, *, delay: float = 0.0, bandwidth: float = math.inf
    ) -> None:
        self._target = (host, port)
        self._fault = fault
        DelayLine(delay, bandwidth)  # raises for wrong values here rather than at the first connection
        self._delay, self._bandwidth = delay, bandwidth
        self.accepted = 0  # connections so far
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._woken, self._waker = socket.socketpair()
        self._closing = self._stalled = self._refusing = self._break = False
        self._sides: list[_Side] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name="proxy")

    def __enter__(self) -> TcpProxy:
        """Start to accept connections."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Break all connections, and stop."""
        self._closing = True
        self._wake()
        self._thread.join()
        for side in self._sides:
            side.socket.close()
        for end in (self._listener, self._woken, self._waker):
            end.close()

    def cut(self) -> None:
        """Break all connections, and new ones at once, until restore()."""
        self._refusing = self._break = True
        self._wake()

    def stall(self) -> None:
        """Pass no bytes, but keep connections open, until restore()."""
        self._stalled = True
        self._wake()

    def restore(self) -> None:
        """Undo cut() and stall()."""
        self._refusing = self._stalled = False
        self._wake()

    def _wake(self) -> None:
        self._waker.send(b"x")

    def _run(self) -> None:
        while not self._closing:
            for key, mask in self._wait():
                if key.fileobj is self._woken:
                    self._woken.recv(_PIECE)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._sides:
                    self._move(key.data, mask)
            self._release()
            if self._break:
                self._break = False
                for side in list(self._sides):
                    self._drop(side)

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for work; return the events."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            for side in self._sides:
                wanted = self._wanted(side)
                if wanted:
                    selector.register(side.socket, wanted, side)
            delay_lines = [] if self._stalled else [side.delay_line for side in self._sides]
            return selector.select(wait_s(delay_lines, time.monotonic()))

    def _wanted(self, side: _Side) -> int:
        if self._stalled:
            return 0
        room = side.other.delay_line.held + len(side.other.waiting) < _MOST_HELD
        return (selectors.EVENT_READ if room else 0) | (selectors.EVENT_WRITE if side.waiting else 0)

    def _accept(self) -> None:
        device, _ = self._listener.accept()
        self.accepted += 1
        try:
            if self._refusing or getattr(self._fault, "is_cut", False):
                raise ConnectionRefusedError
            broker = socket.create_connection(self._target)
        except OSError:
            device.close()
            return
        sides = [_Side(s, end, DelayLine(self._delay, self._bandwidth)) for end, s in enumerate((broker, device))]
        for side, other in zip(sides, reversed(sides), strict=True):
            side.other = other
            side.socket.setblocking(False)
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sides += sides

    def _move(self, side: _Side, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                side.waiting = side.waiting[side.socket.send(side.waiting) :]
            if mask & selectors.EVENT_READ:
                data = side.socket.recv(_PIECE)
                if not data:
                    raise ConnectionResetError
                passed = data if self._fault is None else self._fault(data, side.end)
                side.other.delay_line.push(passed, time.monotonic())
                if len(passed) < len(data):
                    self._break = (
                        True  # this once; whether new connections pass is up to the fault, which may be restored by now
                    )
        except BlockingIOError:
            pass
        except OSError:
            self._drop(side)

    def _release(self) -> None:
        if not self._stalled:
            for side in self._sides:
                side.waiting += side.delay_line.pop(time.monotonic())

    def _drop(self, side: _Side) -> None:
        """Close both ends, after sending the due bytes that the sockets accept."""
        for end in (side, side.other):
            if end in self._sides:
                self._sides.remove(end)
                with contextlib.suppress(OSError):
                    end.socket.send(end.waiting)
                end.socket.close()
