# SPDX-License-Identifier: Apache-2.0
"""A real board on a serial port, with the same interface as an emulated one."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess

from fedmote.testing.log import WAIT_S, Log, follow


class Board:
    """A running board, used while the context lasts.

    port: its serial port. power: a command to switch it, called with "on" or "off" as last argument. log: a command
    that prints the firmware's log, line by line, until it is terminated.
    """

    def __init__(self, port: str, *, power: str | None = None, log: str | None = None) -> None:
        self.serial_path = port
        self.log = Log()
        self.power = "on"
        self._power = None if power is None else shlex.split(power)
        self._log = None if log is None else shlex.split(log)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Board:
        """Start to read the log. If there is a power command, restart the board first."""
        with contextlib.ExitStack() as stack:
            if self._log is None:
                self.log.close("the board's log is not read; name a command that prints it with --fedmote-log")
            else:
                reader = subprocess.Popen(self._log, stdout=subprocess.PIPE)
                assert reader.stdout is not None
                descriptor = reader.stdout.fileno()
                stack.callback(reader.stdout.close)
                stack.callback(reader.wait)
                thread = follow(self.log, lambda: os.read(descriptor, 4096), lambda: "the --fedmote-log command ended")
                stack.callback(thread.join)
                stack.callback(reader.terminate)
            if self._power is not None:
                self.power_cut()
                self.power_on()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading the log; the board keeps running."""
        self._stack.close()

    @property
    def lines(self) -> list[str]:
        """The lines of the firmware's log."""
        return self.log.lines

    @property
    def state(self) -> str:
        """The last state in the firmware's log; "" before the first."""
        return self.log.last(r"^state (\w+)")

    def wait_for(self, pattern: str, after: int = 0, timeout_s: float = WAIT_S) -> re.Match[str]:
        """Wait for a line; see Log.wait_for()."""
        return self.log.wait_for(pattern, after, timeout_s)

    def power_cut(self) -> None:
        """Switch the board off."""
        self._switch("off")

    def power_on(self) -> None:
        """Switch it on."""
        self._switch("on")

    def _switch(self, to: str) -> None:
        if self._power is None:
            raise RuntimeError("this board's power cannot be switched: name a command with --fedmote-power 'COMMAND'; "
                               "it is called as COMMAND on and COMMAND off")  # fmt: skip
        done = subprocess.run([*self._power, to], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{shlex.join([*self._power, to])} failed: {(done.stderr or done.stdout).strip()}")
        self.power = to
