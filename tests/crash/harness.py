# SPDX-License-Identifier: Apache-2.0
"""Kills the server at one point after another while fifty devices train, and checks the files it left behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from work import DEVICES, EXAMPLES, buffered, trajectory, weights

from fedmote.links.broker import private_broker

HERE = Path(__file__).parent
WAIT_S = 120.0


class Crash:
    """A federation in a folder whose server is killed and restarted. buffer: of asynchronous rounds, 0: synchronous."""

    def __init__(self, folder: Path, buffer: int = 0) -> None:
        self.folder, self.buffer = folder, buffer
        self.errors = (folder / "errors").open("ab")
        self.server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Crash:
        self._broker = private_broker()
        self.broker = self._broker.__enter__()
        self.devices = self._spawn("crash_devices.py", self.broker)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.server, self.devices):
            if process is not None:
                process.kill()
                process.communicate()
        self._broker.__exit__(None, None, None)
        self.errors.close()

    def _spawn(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, env=os.environ | {"PYTHONPATH": str(HERE)},
        )  # fmt: skip

    def start(self, point: str = "never", rounds: int = 0) -> None:
        """Start the server: to be killed at `point`, or to end when round `rounds` is committed."""
        arguments = (str(self.folder), self.broker, point, str(rounds), str(self.buffer))
        self.server = self._spawn("crash_server.py", *arguments)

    def wait(self, expected: int) -> None:
        """Wait for the server's end, which must be with this exit code."""
        assert self.server is not None
        try:
            code = self.server.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            code = None
        self.server.communicate() if code is not None else None
        assert code == expected, f"exit code {code} at {self.log()[-1]}: {self._told()}"
        self.server = None

    def kill_at(self, point: str) -> None:
        """Start the server, which kills itself at that point."""
        self.start(point)
        self.wait(-signal.SIGKILL)

    def forget(self) -> None:
        """Delete the database. No device may have been asked to train since it was made."""
        for file in self.folder.glob("f.sqlite*"):
            file.unlink()

    def kill_after(self, seconds: float) -> None:
        """Start the server and kill it after this time, at any point of its code."""
        self.start("some time")
        time.sleep(seconds)
        assert self.server is not None and self.server.poll() is None, self._told()
        self.server.kill()
        self.wait(-signal.SIGKILL)

    def run(self, rounds: int) -> None:
        """Let the server commit so many more rounds without a kill."""
        self.start(rounds=len(self.models()) - 1 + rounds)
        self.wait(0)

    def timed(self, rounds: int) -> float:
        """Let the server commit so many more rounds; return the seconds from its start."""
        started = time.monotonic()
        self.run(rounds)
        return time.monotonic() - started

    def log(self) -> list[dict[str, Any]]:
        """Return the log entries of all servers."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def points(self) -> list[str]:
        """Return the points where servers were to be killed, in order."""
        return [entry["point"] for entry in self.log() if "point" in entry]

    def lost(self) -> int:
        """Return how many servers were killed with updates that they had folded but not committed."""
        entries = [entry for entry in self.log() if "committed" not in entry]
        return sum("start" in entry and "fold" in before for before, entry in pairwise(entries))

    def models(self) -> list[bytes]:
        """All committed models, by version."""
        if not (self.folder / "f.sqlite").exists():
            return [b""]
        with closing(sqlite3.connect(self.folder / "f.sqlite")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [row[0] for row in db.execute("SELECT elements FROM model ORDER BY version")]

    def records(self) -> list[dict[str, Any]]:
        """The log of rounds."""
        with closing(sqlite3.connect(self.folder / "f.sqlite")) as db:
            return [json.loads(row[0]) for row in db.execute("SELECT record FROM round ORDER BY number")]

    def stop_devices(self) -> list[dict[str, Any]]:
        """Stop the devices; return the result of each."""
        out, _ = self.devices.communicate(b"stop\n", WAIT_S)
        assert self.devices.returncode == 0, self._told()
        return list(json.loads(out))

    def _told(self) -> str:
        return (self.folder / "errors").read_text()[-3000:]


WHEN = ("before", "after")
FRESH = [
    "PRAGMA journal_mode = 1", "PRAGMA synchronous = 1", "BEGIN IMMEDIATE 1", "CREATE TABLE model 1",
    "CREATE TABLE round 1", "CREATE TABLE federation 1", "ALTER TABLE federation 1", "UPDATE federation SET 1",
    "DROP TABLE IF 1", "PRAGMA user_version = 1", "PRAGMA user_version = 2", "INSERT INTO federation 1",
    "INSERT INTO model 1", "COMMIT 1", "rename 1", "fsync 1", "BEGIN IMMEDIATE 3", "UPDATE federation SET 2",
    "COMMIT 3",
]  # fmt: skip
"""Steps of making a database and beginning its first round: no device was asked for anything yet."""

STEPS = (
    [f"PRAGMA {name} = 1" for name in ("journal_mode", "synchronous")]
    + [f"{name} {n}" for name in ("BEGIN IMMEDIATE", "COMMIT", "PRAGMA wal_checkpoint(TRUNCATE)") for n in (1, 2, 3)]
    + [f"{name} {n}" for name in ("INSERT INTO model", "INSERT INTO round", "DELETE FROM model") for n in (1, 2)]
    + ["Refusal 1", "Commit 1", "Commit 2"]
    + [f"ModelChunk {n}" for n in range(1, 11)]
    + [f"TakenBack {n}" for n in range(1, 6)]
    + [f"Welcome {n}" for n in (*range(1, 50, 6), 50)]
    + [f"{name} {n}" for name in ("Plan", "Receipt") for n in (1, 2, *range(6, 49, 6), 49, 50, 51, 52, 75, 88, 99, 100)]
)
"""Steps of opening the database, greeting devices, and of the first two rounds after that."""

Point = tuple[str, bool]  # and whether it can be killed while the database is new


def chosen(count: int) -> list[Point]:
    """Return so many points, the most useful first; those with a new database come first of all."""
    telling: list[Point] = [("before COMMIT 1", True), ("before rename 1", True), ("after COMMIT 3", True)]
    telling += [(f"{when} {step} {n}", False) for step, n in (("COMMIT", 2), ("Commit", 1)) for when in WHEN]
    telling += [("after Plan 24", False), ("after Receipt 24", False), ("before Receipt 50", False)]
    points = [(f"{when} {step}", steps is FRESH) for steps in (FRESH, STEPS) for step in steps for when in WHEN]
    points = telling + [point for point in points if point not in telling]
    assert len(set(points)) == len(points) >= count
    return sorted(points[:count], key=lambda point: not point[1])


def judge(crash: Crash) -> int:
    """Assert that every round is as without a kill, and that each update counted once; return the rounds."""
    models = crash.models()
    rounds = len(models) - 1
    wanted = trajectory(rounds)
    for version, model in enumerate(models, 1):
        assert model == wanted[version - 1].tobytes(), f"model {version} is another than without a crash"
    records = crash.records()
    assert [r["round"] for r in records] == list(range(1, rounds + 1))
    for record in records:
        assert (record["reported"], record["selected"], record["partial"]) == (DEVICES, DEVICES, 0), record
        assert record["examples"] == sum(EXAMPLES), record
    _judge_folds(crash.log(), [crc32(model) for model in models])
    for device, report in enumerate(crash.stop_devices()):
        assert report["fits"] == list(range(1, rounds + 1)), f"device {device} worked in {report['fits']}"
    return rounds


def _judge_folds(log: list[dict[str, Any]], models: list[int]) -> None:
    """Each model is made of one update of every device for that round, folded by a server that made the commit."""
    updates = {
        round: {f"d{i:02}": crc32(weights(base, round, i).tobytes()) for i in range(DEVICES)}
        for round, base in enumerate(trajectory(len(models)), 1)
    }
    finished: set[int] = set()
    folds: list[tuple[str, int]] = []
    for entry in log:
        if "begin" in entry:
            round, folds = models.index(entry["begin"]) + 1, []
        elif "fold" in entry:
            assert entry["was"] and entry["whole"], entry
            folds.append((entry["fold"], entry["crc32"]))
        elif "finish" in entry:
            assert sorted(folds) == sorted(updates[round].items()), f"round {round} was made of {sorted(folds)}"
            assert round == len(models) or entry["finish"] == models[round], f"round {round} ended with another model"
            finished.add(round)
    assert finished >= set(range(1, len(models)))


def judge_buffered(crash: Crash) -> int:
    """Assert that each update is in exactly one model, and each model equals its stated updates; return the rounds."""
    data = crash.models()
    models = [np.frombuffer(model, np.float32) for model in data]
    rounds = len(models) - 1
    made: dict[int, list[tuple[str, int]]] = {}  # round -> (device, CRC-32 of its update) of the committed model
    numbers = {crc32(model): version for version, model in enumerate(data, 1)}  # round n starts from model n
    for entry in crash.log():
        if "begin" in entry:
            round, folds = numbers[entry["begin"]], []
        elif "fold" in entry:
            assert entry["was"] and entry["whole"], entry
            folds.append((entry["fold"], entry["crc32"]))
        elif "finish" in entry and numbers.get(entry["finish"]) == round + 1:
            made[round] = folds
    reports = crash.stop_devices()
    works = {
        (f"d{i:02}", crc32(weights(models[planned - 1], planned, i).tobytes())): (i, planned)
        for i, report in enumerate(reports)
        for planned in report["fits"]
    }
    counted: list[tuple[int, int]] = []
    for round in range(1, rounds + 1):
        updates = [works[fold] for fold in made[round]]
        assert len({index for index, _ in updates}) == len(updates) == crash.records()[round - 1]["reported"]
        np.testing.assert_allclose(models[round], buffered(models, round, updates), rtol=1e-6, atol=1e-4)
        counted += updates
    assert len(set(counted)) == len(counted), "a device's work counted twice"
    for index, report in enumerate(reports):
        fits = report["fits"]
        assert fits == sorted(set(fits)), f"device {index} did the same work twice: {fits}"
        lost = [planned for planned in fits[:-1] if (index, planned) not in counted]  # the last may be in transit
        assert not lost, f"device {index} worked for nothing in {lost}"
    return rounds
