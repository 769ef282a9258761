# SPDX-License-Identifier: Apache-2.0
"""`fedmote evaluate` and `fedmote query` against a running server: real processes, broker and devices."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_broker import Broker

from fedmote.cli import ask
from fedmote.config.settings import load
from fedmote.errors import TaskError
from fedmote.store.database import is_served
from fedmote.tasks.histogram import Histogram
from fedmote_device import CTrainer, Device, run_many

FEDMOTE = str(Path(sys.executable).parent / "fedmote")
TOML = """
[federation]
name = "f"
[model]
tensors = [{{ name = "dense0.kernel", shape = [4, 3] }}, {{ name = "dense0.bias", shape = [3] }}]
[mqtt]
url = "{url}"
[round]
devices = 1000
[tasks]
min_cohort = 3
"""
LABELS = [0, 1, 1, 2, 2, 2]
EACH_S = 120  # for what takes a second or two on an idle machine


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def described(broker: Broker, tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(TOML.format(url=broker.url))
    return path


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + EACH_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def serving(described: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server and wait until it has its database."""
    database = load(described).database
    process = subprocess.Popen([FEDMOTE, "server", str(described)])
    try:
        until(lambda: database.exists() and is_served(database))
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def fleet(broker: Broker) -> Iterator[None]:
    """Run three devices."""
    x = np.ones((len(LABELS), 4), np.float32)
    devices = [
        Device(f"d{i}", broker.url, federation="f", trainer=CTrainer((4, 3), x, np.array(LABELS)), seed=i + 1)
        for i in range(3)
    ]
    over = threading.Event()
    thread = threading.Thread(target=run_many, args=(devices, over.is_set))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def started(described: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [FEDMOTE, arguments[0], str(described), *arguments[1:]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=EACH_S)
    assert process.returncode == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def test_an_operator_asks_a_running_server_also_across_its_death(broker: Broker, described: Path) -> None:
    database = load(described).database

    def waiting() -> int:
        with contextlib.closing(sqlite3.connect(database)) as db:
            return int(db.execute("SELECT count(*) FROM task").fetchone()[0])

    with serving(described):
        query = started(described, "query", "--field", "label", "--range", "0", "3", "--histogram", "3")
        until(lambda: waiting() == 1)
    with serving(described), fleet(broker):  # the first server was killed while no device was online
        told = result(query)
        assert (told["devices"], told["counts"], told["sum"]) == (3, [3, 6, 9], 24)
        assert result(started(described, "query", "--field", "label", "--range", "0", "3", "--quantile", "0.9"))[
            "quantiles"
        ]["0.9"] == pytest.approx(2, abs=0.003)
        heavy = result(started(described, "query", "--field", "label", "--range", "0", "99", "--heavy", "0.4"))
        assert heavy["codes"] == {"2": 0.5}
        evaluation = result(started(described, "evaluate"))
        assert (evaluation["devices"], evaluation["examples"], evaluation["version"]) == (3, 18, 1)
        missing = started(described, "query", "--field", "nothing", "--range", "0", "3", "--histogram", "3")
        said = " ".join(missing.communicate(timeout=EACH_S)[1].split())
        assert "0 of 3 devices gave a result; with fewer than 3" in said
    assert waiting() == 0  # no result is left in the database


def test_without_a_server_the_error_says_so(described: Path) -> None:
    with pytest.raises(TaskError, match="start the server first"):
        ask.ask(load(described).database, Histogram("label", 0, 3))
    with serving(described):
        pass
    slept: list[float] = []
    with pytest.raises(TaskError, match="no server runs"):
        ask.ask(load(described).database, Histogram("label", 0, 3), slept.append)
    assert sum(slept) == ask.ABSENT_S


@pytest.mark.parametrize(("options", "complaint"), [
    (("--range", "0", "3"), "give one of"),
    (("--range", "0", "3", "--heavy", "0.1", "--histogram", "4"), "give one of"),
    (("--range", "0.5", "3", "--heavy", "0.1"), "codes are whole numbers"),
    (("--range", "3", "0", "--histogram", "4"), "the lower first"),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused_at_once(described: Path, options: tuple[str, ...], complaint: str) -> None:
    process = started(described, "query", "--field", "label", *options)
    assert complaint in process.communicate(timeout=EACH_S)[1]
    assert process.returncode != 0
