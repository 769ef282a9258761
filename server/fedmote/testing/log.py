# SPDX-License-Identifier: Apache-2.0
"""A device's log, line by line, and functions that wait for a line."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

WAIT_S = 120.0


class Log:
    """The log of one device over all its starts.

    Firmware writes one event a line: `boot restored=<n> round=<r>`, `state <name> round=<r>`, `chunk <n>`,
    `fault <what>`.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.closed = ""  # why the log has ended
        self._changed = threading.Condition()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Add text; the last line may be incomplete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._changed:
            self.lines += [line.decode(errors="replace").rstrip("\r") for line in lines]
            self._changed.notify_all()

    def open(self) -> None:
        """Expect more lines. An incomplete last line stays incomplete."""
        with self._changed:
            self.closed, self._rest = "", b""

    def close(self, why: str) -> None:
        """Expect no more lines."""
        with self._changed:
            self.closed = why
            self._changed.notify_all()

    def wait_for(self, pattern: str, after: int = 0, timeout_s: float = WAIT_S) -> re.Match[str]:
        """Return the first match in a line, from line number `after` on; EOFError: the log has ended without one."""
        match = re.search(pattern, self.lines[self.wait_line(pattern, after, timeout_s)])
        assert match is not None
        return match

    def wait_line(self, pattern: str, after: int = 0, timeout_s: float = WAIT_S) -> int:
        """Wait as wait_for() does; return the number of the line."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        at = after
        with self._changed:
            while True:
                while at < len(self.lines):
                    if wanted.search(self.lines[at]):
                        return at
                    at += 1
                said = "\n  ".join(self.lines[-12:]) or "nothing"
                if self.closed:
                    raise EOFError(f"no line matches {pattern!r}: {self.closed}; it said\n  {said}")
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no line matches {pattern!r} after {timeout_s:g} s; it said\n  {said}")

    def last(self, pattern: str) -> str:
        """Return the first group of the last match, "" without any."""
        wanted = re.compile(pattern)
        return next((m[1] for line in reversed(self.lines) if (m := wanted.search(line))), "")


def follow(log: Log, read: Callable[[], bytes], ended: Callable[[], str]) -> threading.Thread:
    """Feed the log on a thread from `read`, until that returns nothing. ended: called for the reason."""

    def run() -> None:
        while True:
            try:
                data = read()
            except OSError:
                data = b""
            if not data:
                log.close(ended())
                return
            log.feed(data)

    thread = threading.Thread(target=run, daemon=True, name="log")
    thread.start()
    return thread
