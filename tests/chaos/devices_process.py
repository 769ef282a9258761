# SPDX-License-Identifier: Apache-2.0
"""The devices of the chaos run: real C clients in one process. A quarter has flash and loses power at times.
Arguments: the broker's URL, the folder of the ledger, devices, mean seconds between power cuts of a device. Runs until
SIGTERM.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ledger import ELEMENTS, examples, weights
from numpy.typing import NDArray

from fedmote_device import Device, Flash, run_many

Floats = NDArray[np.float32]
OFF_S = (0.5, 10.0)
UNDER_WAY = ("sealing", "offering", "uploading", "confirming", "holding")


class Trainer:
    """Returns a known update for each round, and logs each training."""

    def __init__(self, member: Member) -> None:
        self.member = member

    def get_parameters(self, config: dict[str, Any]) -> list[Floats]:
        return [np.zeros(ELEMENTS, np.float32)]

    def fit(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[list[Floats], int, dict[str, float]]:
        round, index = int(config["round"]), self.member.index
        mine = weights(round, index)
        self.member.look()  # earlier entries belong to the round before
        self.member.trained = round
        self.member.note("trained", crc32=zlib.crc32(mine.tobytes()))
        return [mine], examples(index), {"loss": 1.0}

    def evaluate(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[float, int, dict[str, float]]:
        raise NotImplementedError


class Member:
    """One place in the fleet: its present device, its flash, and its part of the ledger."""

    def __init__(self, index: int, url: str, file: Any, flash: Flash | None, every_s: float) -> None:
        self.index, self.url, self.file, self.flash, self.every_s = index, url, file, flash, every_s
        self.name = f"d{index}"
        self.random = random.Random(index)
        self.starts = self.cuts = 0
        self.trained = 0  # the round of the present or last update
        self.noted: set[str] = set()  # about that update
        self.device: Device | None = None
        self.power_on()

    def note(self, event: str, **more: Any) -> None:
        if event == "trained":
            self.noted.clear()
        self.noted.add(event)
        line = {"at": time.time(), "device": self.name, "event": event, "round": self.trained, **more}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def power_on(self) -> None:
        self.starts += 1
        self.updates = 0
        self.device = Device(
            self.name, self.url, federation="chaos", trainer=Trainer(self), seed=1000 * self.index + self.starts,
            examples=examples(self.index), keep_alive_s=20, backoff_ms=(500, 8000), retry_ms=(4000, 30_000),
            flash=self.flash, delta=False,
        )  # fmt: skip
        self.changes_at = time.monotonic() + self.random.expovariate(1 / self.every_s)

    def look(self) -> None:
        """Log the receipt, then the commit, of the present update."""
        if self.device is None or self.trained == 0:
            return
        if self.device.counters["updates"] > self.updates:
            self.updates = self.device.counters["updates"]
            self.note("receipt")
        round = self.device.round  # 0 after a power cut that lost the update
        over = round > self.trained or (round == self.trained and self.device.state not in UNDER_WAY)
        if over and "receipt" in self.noted and "committed" not in self.noted:
            self.note("committed")

    def switch(self, now: float) -> None:
        """Cut or restore the power when its time has come."""
        if self.flash is None or now < self.changes_at:
            return
        if self.device is not None:
            self.device.cut_link()
            self.device.poll()  # the socket is closed without a message
            self.device = None
            self.cuts += 1
            self.changes_at = now + self.random.uniform(*OFF_S)
        else:
            self.power_on()


def is_past(time_s: float) -> bool:
    """Tell whether this point of the monotonic clock has passed."""
    return time.monotonic() >= time_s


def main() -> None:
    """Run the devices."""
    url, folder, count, every_s = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    over = [False]
    signal.signal(signal.SIGTERM, lambda *_: over.__setitem__(0, True))
    size = Flash.size_for(ELEMENTS)
    with open(folder / "devices.jsonl", "w") as file:
        members = [Member(i, url, file, Flash(size) if i % 4 == 0 else None, every_s) for i in range(count)]
        while not over[0]:
            fleet = [member.device for member in members if member.device is not None]
            until = time.monotonic() + 0.1
            run_many(fleet, partial(is_past, until), slice_ms=20)
            now = time.monotonic()
            for member in members:
                member.look()
                member.switch(now)
        totals = {"power_cuts": sum(member.cuts for member in members)}
        (folder / "devices.json").write_text(json.dumps(totals))


if __name__ == "__main__":
    main()
