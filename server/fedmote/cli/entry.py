# SPDX-License-Identifier: Apache-2.0
"""Where `fedmote` starts: a signal during the imports, which take half a second, ends it without a traceback."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 128  # the exit code is this plus the signal's number, as of a shell


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED + number)


def main() -> None:
    """Run the command line. Each command then has Python's own handling of signals, unless it sets another."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    from fedmote.cli.main import main as commands

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    commands()
