# SPDX-License-Identifier: Apache-2.0
"""The real server as a process that kills itself at a given point, and that notes durably what it folded.

Points: "line N", the N-th line that it runs of fedmote and paho once devices may connect; "before NAME N" and "after
NAME N", the N-th time of a step: a statement of SQL by its first three words, "rename" and "fsync" of files, a message
that is sent by its name in the schema ("TakenBack" for the end of a retained one).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from zlib import crc32

import numpy as np
import paho.mqtt.client as mqtt
from work import CHUNK, DEVICES, ELEMENTS, MAX_STALENESS, STALENESS_EXPONENT

from fedmote.fleet.limits import Limits
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.update import Update
from fedmote.model.layout import Layout, Model, Tensor
from fedmote.rounds.policy import Policy
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote.wire.codec import decode

FOREVER_S = 3600.0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Log:
    """Lines of JSON that survive the process: each is written with one system call."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, **entry: Any) -> None:
        os.write(self.file, json.dumps(entry).encode() + b"\n")


class LoggedFedAvg(FedAvg):
    """FedAvg that logs its calls."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def begin(self, model: Model) -> Accumulator:
        self.log(begin=crc32(model.tobytes()))
        return super().begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        folded = super().fold(accumulator, update)
        self.log(fold=update.device, crc32=crc32(update.data), examples=update.examples, whole=update.whole, was=folded)
        return folded

    def finish(self, accumulator: Accumulator) -> Model:
        model = super().finish(accumulator)
        self.log(finish=crc32(model.tobytes()))
        return model


@dataclass
class Steps:
    """Counts steps by name, and kills the process at the requested step."""

    when: str = ""
    name: str = ""
    nth: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def run(self, name: str, step: Callable[[], Any], complete: Callable[[], None] = lambda: None) -> Any:
        """Run a step. complete: called before the process is killed after the step."""
        self.seen[name] += 1
        chosen = name == self.name and self.seen[name] == self.nth
        if chosen and self.when == "before":
            die()
        result = step()
        if chosen:
            complete()
            die()
        return result


def patch(where: object, name: str, call: Any) -> None:
    """Replace a function for the life of this process."""
    setattr(where, name, call)


def watch_storage(steps: Steps) -> None:
    """Make a step of every SQL statement, and of the file operations that put a new database in place."""

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            run = super().execute
            result: sqlite3.Cursor = steps.run(_name(statement), lambda: run(statement, *arguments))
            return result

        def executemany(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            run = super().executemany
            result: sqlite3.Cursor = steps.run(_name(statement), lambda: run(statement, *arguments))
            return result

    connect = sqlite3.connect
    patch(sqlite3, "connect", lambda *arguments, **options: connect(*arguments, factory=Connection, **options))
    rename, fsync = os.rename, os.fsync
    patch(os, "rename", lambda *names: steps.run("rename", lambda: rename(*names)))
    patch(os, "fsync", lambda file: steps.run("fsync", lambda: fsync(file)))


def _name(statement: str) -> str:
    return " ".join(statement.split()[:3])


def watch_messages(steps: Steps) -> None:
    """Make a step of every message that is sent. "After" means that it has left for the broker."""
    publish = mqtt.Client.publish

    def watched(self: mqtt.Client, topic: str, payload: bytes, **options: Any) -> Any:
        decoded = decode(payload)

        def flush() -> None:
            while self.want_write():
                self.loop_write()

        name = type(decoded).__name__ if decoded else "TakenBack"
        return steps.run(name, lambda: publish(self, topic, payload, **options), flush)

    patch(mqtt.Client, "publish", watched)


def count_lines(nth: int, count: list[int]) -> None:
    """Count in count[0] the lines that run from now on; kill the process at the n-th."""
    places = tuple(str(Path(sys.modules[name].__file__ or "").parent) for name in ("fedmote", mqtt.__name__))

    def line(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            count[0] += 1
            if count[0] == nth:
                die()
        return line

    def call(frame: Any, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(places) else None

    sys.settrace(call)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:  # frames that already run can be traced in no other way
        frame.f_trace = call(frame, "", None)
        frame = frame.f_back


def main(folder: Path, broker: str, point: str, rounds: int, buffer: int) -> None:
    """Serve until round `rounds` is committed, 0: until killed. buffer: of the asynchronous policy, 0: synchronous."""
    logging.basicConfig(level="INFO")
    log = Log(folder / "log")
    log(start=time.monotonic(), point=point)
    kind, *rest = point.split(" ")
    lines = [0]
    steps = Steps()
    if kind in ("before", "after"):
        steps = Steps(kind, " ".join(rest[:-1]), int(rest[-1]))
        watch_storage(steps)
        watch_messages(steps)
    federation = Federation(
        "f", Layout((Tensor("parameter0", (ELEMENTS,)),)), broker,
        policy=Policy(
            devices=DEVICES, goal=1.0, soft_deadline_s=FOREVER_S, hard_deadline_s=FOREVER_S, resume_s=0.0,
            chunk_elements=CHUNK, encodings=("float32",), buffer=buffer, max_staleness=MAX_STALENESS,
            staleness_exponent=STALENESS_EXPONENT,
        ),
        limits=Limits(retry_ms=50), database=folder / "f.sqlite", initial=np.zeros(ELEMENTS, np.float32),
    )  # fmt: skip

    def committed(record: Record) -> None:
        log(committed=record.round, at=time.monotonic(), lines=lines[0], steps=steps.seen)

    server = Server(federation, LoggedFedAvg(log), on_round=committed)
    server.store.models.keep_newest = 1_000_000  # the test compares every model afterwards

    def ready() -> None:
        if kind == "line":
            count_lines(int(rest[0]), lines)

    asyncio.run(server.run(rounds or None, ready))
    server.store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
