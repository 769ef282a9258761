# SPDX-License-Identifier: Apache-2.0
"""Power cuts at chosen moments of a device's work."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

from fedmote.testing.board import Board
from fedmote.testing.log import WAIT_S
from fedmote.testing.qemu import EmulatedDevice
from fedmote_device.device import STATES


@dataclass(frozen=True, slots=True)
class Moment:
    """When to cut the power.

    at: a state that the firmware enters (str), the number of a model chunk that it has received (int), or seconds from
    now (float). after_s: additional seconds.
    """

    at: str | int | float
    after_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the state's name. ValueError: no firmware logs it."""
        if isinstance(self.at, str) and self.at not in STATES:
            raise ValueError(f"unknown state {self.at!r}: expected one of {', '.join(STATES)}")


@dataclass(frozen=True, slots=True)
class Boot:
    """The firmware's log line at a start: how many chunks, or updates, its storage restored, and their round."""

    restored: int
    round: int


def wait_for_moment(
    device: EmulatedDevice | Board, moment: Moment, round: int | None = None, timeout_s: float = WAIT_S
) -> None:
    """Wait for the moment. round: the moment's round, which may have started already."""
    after = len(device.lines)
    if round is not None:
        after = device.log.wait_line(rf"^state downloading round={round}$", 0, timeout_s)
    if isinstance(moment.at, str):
        device.wait_for(rf"^state {moment.at} ", after, timeout_s)
    elif isinstance(moment.at, int):
        device.wait_for(rf"^chunk {moment.at}$", after, timeout_s)
    threading.Event().wait(moment.after_s + (moment.at if isinstance(moment.at, float) else 0.0))


def power_cycle(
    device: EmulatedDevice | Board, at: str | int | float | Moment, *, round: int | None = None,
    timeout_s: float = WAIT_S,
) -> Boot | None:  # fmt: skip
    """Cut the power at a moment, then restore it; return what the device logged at its start.

    round: the moment's round, which may have started already; None: only log lines from now on count. Returns None for
    a board whose log is not read.
    """
    moment = at if isinstance(at, Moment) else Moment(at)
    wait_for_moment(device, moment, round, timeout_s)
    device.power_cut()
    cut = len(device.lines)
    device.power_on()
    if device.log.closed and isinstance(device, Board):
        return None
    boot = device.wait_for(r"^boot restored=(\d+) round=(\d+)", cut, timeout_s)
    return Boot(int(boot[1]), int(boot[2]))


def moments(seed: int, count: int, transfer_s: float, chunks: int = 0) -> list[Moment]:
    """Draw moments from a seed, spread over a round: download, training, upload, between receipt and commit.

    transfer_s: about how long a transfer takes. chunks: of the model; 0 for a firmware that does not log them.
    """
    rng = random.Random(seed)
    out = []
    for number in range(count):
        phase = ("download", "working", "uploading", "holding", "upload", "any")[number % 6]
        if phase == "download" and chunks > 1:
            out.append(Moment(rng.randrange(1, chunks)))
        elif phase == "download":
            out.append(Moment("downloading", rng.uniform(0, transfer_s)))
        elif phase == "upload":
            out.append(Moment("uploading", rng.uniform(0, transfer_s)))
        elif phase == "any":
            out.append(Moment("downloading", rng.uniform(0, 3 * transfer_s)))
        else:
            out.append(Moment(phase))
    return out
