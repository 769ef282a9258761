# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every case needs the same gateway, files and broker, which are defined at the top.
"""What can happen to a gateway: damaged files, full disks, lost brokers, clock jumps, suspension, other programs.

Each case ends in a clear state. The message says what, where and what to do. No committed round is lost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_broker import CHUNK, ELEMENTS, Broker, Devices, Floats, Known, mean

from fedmote.errors import StoreError
from fedmote.model.layout import Layout, Tensor
from fedmote.server.server import STORE_RETRY_S
from fedmote.store.store import Store

LAYOUT = Layout((Tensor("parameter0", (ELEMENTS,)),))
ROUNDS, KEPT = 12, 10
WAIT_S = 120.0
PAGE = 4096
COUNT = 3  # number of devices
NOBODY = "mqtt://127.0.0.1:1"
ANEW = "restore the file from a backup, or move it away to start the federation anew"


def until(what: Callable[[], object], else_: Callable[[], str]) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, else_()[-2000:]
        time.sleep(0.01)


class Process:
    """`fedmote server` in a process of its own, as an operator runs it."""

    def __init__(
        self, folder: Path, broker: str, *arguments: str, data: str = ".", policy: str = "", prefix: Sequence[str] = (),
        **env: str,
    ) -> None:  # fmt: skip
        toml = folder / "federation.toml"
        toml.write_text(
            f'[federation]\nname = "f"\ndata = "{data}"\n[mqtt]\nurl = "{broker}"\n'
            f'[model]\ntensors = [{{ name = "parameter0", shape = [{ELEMENTS}] }}]\n'
            f"[limits]\nretry_ms = 50\n"
            f'[round]\ndevices = {COUNT}\nchunk_elements = {CHUNK}\nencodings = ["float32"]\nresume_s = 0\n'
            f"{policy or 'goal = 1.0'}\n"
        )
        self.said = folder / f"said-{time.monotonic_ns()}"
        command = [*prefix, str(Path(sys.executable).parent / "fedmote"), "server", str(toml), *arguments]
        # Through a pipe: the process itself must write only its database, because the tests limit its writes.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "1000"} | env
        )
        with self.said.open("wb") as file:
            self.copy = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=file)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.copy.wait()

    @property
    def output(self) -> str:
        return " ".join(self.said.read_text().split())

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the process has printed this text."""
        until(
            lambda: self.output.count(text) >= times or self.process.poll() is not None,
            lambda: f"{text!r} is not in: {self.output}",
        )
        assert self.output.count(text) >= times, self.output

    def end(self, code: int) -> str:
        """Wait for the process to end and return its output, which must not contain a traceback."""
        assert self.process.wait(WAIT_S) == code, self.output
        self.copy.wait(WAIT_S)
        assert "Traceback" not in self.output, self.output
        return self.output

    def interrupt(self) -> str:
        """Interrupt the process as an operator does."""
        self.process.send_signal(signal.SIGINT)
        said = self.end(0)
        assert "stopped; the last committed model is in the database" in said
        return said


def refused(folder: Path, **options: Any) -> str:
    """Run a server that cannot start; return its output."""
    with Process(folder, NOBODY, "--rounds", "1", **options) as server:
        return server.end(1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder)
    broker.start()
    yield broker
    broker.stop()


def model_of(round: int) -> Floats:
    return np.random.default_rng(round).normal(size=ELEMENTS).astype(np.float32)


def make(path: Path) -> Store:
    """Make a database with some rounds and return it open."""
    store = Store(path, LAYOUT, model_of(0), KEPT)
    for round in range(1, ROUNDS + 1):
        assert store.commit(round, model_of(round), {"round": round}) == round + 1
    return store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "f.sqlite"
    make(path).close()
    return path


def rounds_in(path: Path) -> int:
    """Open the database. It must hold only whole rounds and the right models; return how many."""
    store = Store(path, LAYOUT, model_of(0), KEPT)
    try:
        version, round, model = store.models.latest()
        assert version == round + 1 and np.array_equal(model, model_of(round))
        assert [record["round"] for record in store.rounds.records()] == list(range(1, round + 1))
        for kept in range(max(1, version - KEPT + 1), version):
            assert np.array_equal(store.models.get(kept), model_of(kept - 1))
        return round
    finally:
        store.close()


# ---- the file


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut to nothing of use": lambda data: data[:100],
    "cut after a page": lambda data: data[:PAGE],
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "another file": lambda data: b"this is no database" * 1000,
    "zeros": lambda data: bytes(len(data)),
    "a model's bytes": lambda data: data.replace(model_of(ROUNDS).tobytes()[:1000], bytes(1000)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_not_used(database: Path, damage: str) -> None:
    """A damaged database is not used and not replaced by a new one. The rest of the file stays unchanged."""
    data = DAMAGE[damage](database.read_bytes())
    assert data != database.read_bytes()
    database.write_bytes(data)
    with pytest.raises(StoreError, match=ANEW) as raised:
        Store(database, LAYOUT, model_of(0), KEPT)
    assert str(database) in str(raised.value)
    assert database.read_bytes() == data


def test_the_command_tells_of_damage(database: Path) -> None:
    """The command reports damage: what, where and what to do, without a traceback."""
    database.write_bytes(database.read_bytes()[:PAGE])
    said = refused(database.parent)
    assert str(database) in said and ANEW in said


def test_any_page_overwritten(database: Path) -> None:
    """If any page is overwritten, either the damage is reported or the page held no needed data."""
    data = database.read_bytes()
    rng = np.random.default_rng(1)
    told = 0
    for at in range(0, len(data), PAGE):
        database.write_bytes(data[:at] + rng.bytes(PAGE) + data[at + PAGE :])
        for extra in database.parent.glob("f.sqlite-*"):
            extra.unlink()
        try:
            assert rounds_in(database) == ROUNDS
        except StoreError as error:
            told += ANEW in str(error)
    assert told >= KEPT  # each model fills at least one page of its own


def test_the_log_beside_it_is_lost(tmp_path: Path) -> None:
    """Without its log, or with another one, the file still has every round: between rounds the log is empty."""
    store = make(tmp_path / "f.sqlite")
    for name, log in (("without", None), ("damaged", b"\x37\x7f\x06\x82" + bytes(5000))):
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "f.sqlite", tmp_path / name)
        if log is not None:
            (tmp_path / name / "f.sqlite-wal").write_bytes(log)
        assert rounds_in(tmp_path / name / "f.sqlite") == ROUNDS
    store.close()


def test_a_crash_before_the_log_was_emptied(tmp_path: Path) -> None:
    """A log with one round is damaged at any place: the round is complete or absent, or the damage is reported."""
    path, copy = tmp_path / "f.sqlite", tmp_path / "copy.sqlite"
    store = make(path)
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM model").fetchall()  # so the log cannot be emptied
        store.commit(ROUNDS + 1, model_of(ROUNDS + 1), {"round": ROUNDS + 1})
        file, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    store.close()
    assert len(log) > PAGE

    def rounds_with(log: bytes) -> int:
        for leftover in tmp_path.glob("copy.sqlite*"):
            leftover.unlink()
        copy.write_bytes(file)
        Path(f"{copy}-wal").write_bytes(log)
        return rounds_in(copy)

    assert rounds_with(log) == ROUNDS + 1
    outcomes = set()
    for at in range(0, len(log), 509):
        with contextlib.suppress(StoreError):
            outcomes.add(rounds_with(log[:at] + bytes([log[at] ^ 0x55]) + log[at + 1 :]))
        with contextlib.suppress(StoreError):
            outcomes.add(rounds_with(log[:at]))
    assert outcomes <= {ROUNDS, ROUNDS + 1} and ROUNDS in outcomes


def test_a_log_without_its_file(database: Path) -> None:
    """If the file is lost but its log is not, the server reports that instead of starting a new database."""
    database.unlink()
    Path(f"{database}-wal").write_bytes(b"some rounds")
    said = refused(database.parent)
    assert f"{database} is gone but f.sqlite-wal is still there; restore both, or move that one away too" in said
    assert not database.exists()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "f.sqlite").mkdir()
    assert f"{tmp_path}/f.sqlite is a folder where the database should be; move it away" in refused(tmp_path)


def test_read_only(tmp_path: Path) -> None:
    """A read-only database is refused with a message. Root may write anywhere, so the test gives that right up."""
    data = tmp_path / "data"
    data.mkdir()
    make(data / "f.sqlite").close()
    (data / "f.sqlite").chmod(0o444)
    data.chmod(0o555)
    humble = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"] if os.geteuid() == 0 else []
    said = refused(tmp_path, data="data", prefix=humble)
    data.chmod(0o755)
    (data / "f.sqlite").chmod(0o644)
    assert f"{data}/f.sqlite" in said and "the server's user must be able to write the file and its folder" in said
    assert rounds_in(data / "f.sqlite") == ROUNDS


# ---- other programs that use the database


def test_a_second_server(tmp_path: Path, broker: Broker) -> None:
    """A second server on the same database is refused, and the first one continues."""
    with Process(tmp_path, broker.url, "--rounds", "3") as first:
        first.wait_for("federation f on")
        until((tmp_path / "f.sqlite").exists, lambda: first.output)
        said = refused(tmp_path)
        assert f"{tmp_path}/f.sqlite: another server uses it; stop that one, or give this federation" in said
        with Devices(broker.url, COUNT) as devices:
            first.end(0)
            assert_exact(tmp_path / "f.sqlite", devices.trainers, 3)


def lock(path: Path) -> sqlite3.Connection:
    """Lock the database as another program could."""
    other = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_locked_at_the_start(database: Path) -> None:
    with contextlib.closing(lock(database)):
        said = refused(database.parent)
    assert f"{database}: database is locked; another program has locked it; close that program" in said
    assert rounds_in(database) == ROUNDS


# ---- trouble during rounds


def assert_exact(path: Path, trainers: list[Known], rounds: int) -> None:
    """Assert that every round counts each device's update once, and that each device trained once per round."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        models = dict(db.execute("SELECT round, elements FROM model WHERE round > 0"))
        assert db.execute("SELECT count(*) FROM round").fetchone() == (max(models),)
    assert max(models) >= rounds
    for round, model in models.items():
        assert model == mean(trainers, round).tobytes(), f"round {round}"
    for trainer in trainers:
        assert trainer.fits[: max(models)] == list(range(1, max(models) + 1))


def rounds_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM round").fetchone()[0])


class Trouble:
    """Something that stops the server from writing: begin() starts it (again, if it did not last), end() ends it."""

    text = ""

    def __init__(self, data: Path) -> None:
        self.data = data

    def begin(self, server: Process) -> None: ...

    def end(self, server: Process) -> None: ...


class FullDisk(Trouble):
    """A small file system, if the test may mount one, and a file that fills it."""

    text = "disk is full; free some space on that disk"

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)], check=True)

    def begin(self, server: Process) -> None:
        with contextlib.suppress(OSError), (self.data / "filler").open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(512))

    def end(self, server: Process) -> None:
        (self.data / "filler").unlink()


class Limited(Trouble):
    """The server may not write beyond the start of a file."""

    text = "check that disk; it may be full or broken"

    def begin(self, server: Process) -> None:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))

    def end(self, server: Process) -> None:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Locked(Trouble):
    """Another program locks the database and keeps the lock."""

    text = "database is locked; another program has locked it; close that program"
    other: sqlite3.Connection | None = None

    def begin(self, server: Process) -> None:
        self.other = self.other or lock(self.data / "f.sqlite")

    def end(self, server: Process) -> None:
        assert self.other is not None
        self.other.close()


class Moved(Trouble):
    """The file is moved away while the server runs."""

    text = "f.sqlite was moved or deleted while the server runs; put it back"

    def begin(self, server: Process) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.data / "f.sqlite").rename(self.data / "elsewhere")

    def end(self, server: Process) -> None:
        (self.data / "elsewhere").rename(self.data / "f.sqlite")


def may_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "--mount", "true"]).returncode == 0


@pytest.mark.parametrize("kind", [FullDisk if may_mount() else Limited, Limited, Locked, Moved])
def test_nothing_can_be_written_for_a_while(tmp_path: Path, broker: Broker, kind: type[Trouble]) -> None:
    """While nothing can be written, the round stays open. Afterwards it is committed and counts every update once."""
    data = tmp_path / "data"
    data.mkdir()
    path = data / "f.sqlite"
    trouble = kind(data)
    try:
        with Process(tmp_path, broker.url, data="data") as server, Devices(broker.url, COUNT) as devices:
            server.wait_for("round 1:")

            def told() -> bool:
                trouble.begin(server)
                return trouble.text in server.output

            until(told, lambda: server.output)
            open_round = devices.trainers[0].fits[-1]
            time.sleep(1.5 * STORE_RETRY_S)  # meanwhile the server tries again
            assert devices.trainers[0].fits[-1] == open_round, "a round was announced that is not durable"
            trouble.end(server)
            server.wait_for("can be written again; the round goes on")
            until(lambda: rounds_of(path) >= open_round + 2, lambda: server.output)
            said = server.interrupt()
            assert said.count("The round stays open until it can be written") == 1, said
            assert_exact(path, devices.trainers, open_round + 2)
    finally:
        if kind is FullDisk:
            subprocess.run(["umount", str(data)], check=True)


def test_full_at_the_start(tmp_path: Path) -> None:
    """A full disk at the start leaves no incomplete database behind that would stop the next server."""
    store = tmp_path / "f.sqlite"
    code = (
        "import resource, sys; from fedmote.cli.main import main; before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))\n"
        "try: main(['server', sys.argv[1]])\n"
        "finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)"  # this process writes its coverage, too
    )
    with Process(tmp_path, NOBODY) as server:
        server.end(1)  # stops because there is no broker; the test uses its federation.toml
    for leftover in tmp_path.glob("f.sqlite*"):
        leftover.unlink()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "federation.toml")], capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(store) in done.stderr and "check that disk; it may be full or broken" in done.stderr
    assert not store.exists()
    assert "no MQTT broker" in refused(tmp_path) and store.exists()


def test_damage_in_the_middle_of_a_round(tmp_path: Path, broker: Broker) -> None:
    """The server stops with a message when it reads a damaged page. Usually it has read its file before."""
    path = tmp_path / "f.sqlite"
    with Process(tmp_path, broker.url) as server, Devices(broker.url, COUNT):
        server.wait_for("round 1:")

        with path.open("r+b") as file:
            file.seek(PAGE)
            file.write(bytes(path.stat().st_size - PAGE))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)) as other:
            other.execute("PRAGMA user_version = 99")  # so that the server reads the file again
        said = server.end(1)
    assert f"{path}: " in said and ANEW in said


# ---- the broker


def test_no_broker_at_the_start(tmp_path: Path) -> None:
    assert "no MQTT broker at 127.0.0.1:1 (" in (said := refused(tmp_path)) and "start one or name another" in said


def test_the_broker_dies_in_the_middle_of_rounds(tmp_path: Path, broker: Broker) -> None:
    """When the broker dies during rounds, the server says so, waits and continues the same round."""
    with Process(tmp_path, broker.url) as server, Devices(broker.url, COUNT) as devices:
        server.wait_for("round 3:")
        broker.stop(signal.SIGKILL)
        server.wait_for(f"lost the broker at 127.0.0.1:{broker.port}")
        server.wait_for(f"no broker at 127.0.0.1:{broker.port}")
        broker.start()
        rounds = rounds_of(tmp_path / "f.sqlite") + 2
        until(lambda: rounds_of(tmp_path / "f.sqlite") >= rounds, lambda: server.output)
        server.interrupt()
        assert_exact(tmp_path / "f.sqlite", devices.trainers, rounds)


# ---- time


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t shift(void) {
  static const volatile int64_t *shared;
  if (shared == NULL) {
    const int file = open(getenv("SHIFT"), O_RDONLY);
    shared = mmap(NULL, sizeof *shared, PROT_READ, MAP_SHARED, file, 0);
    (void)close(file);
  }
  return *shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL) {
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  }
  const int result = real(clock, now);
  if ((clock == CLOCK_REALTIME) || (clock == CLOCK_REALTIME_COARSE)) {
    now->tv_sec += shift();
  }
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  (void)zone;
  (void)clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  (void)clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) {
    *out = now.tv_sec;
  }
  return now.tv_sec;
}
"""
YEAR_S = 365 * 86400


def test_the_clock_jumps(tmp_path: Path, broker: Broker) -> None:
    """The clock jumps by years, forward and back, during rounds: no decision depends on the wall clock."""
    shift, source, shim = tmp_path / "shift", tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)

    def jump(years: int) -> None:
        with shift.open("r+b") as file:  # written in place, so the server sees it at once
            file.write(struct.pack("q", years * YEAR_S))

    shift.write_bytes(bytes(8))
    jump(30)
    env = {"LD_PRELOAD": str(shim), "SHIFT": str(shift)}
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], env=os.environ | env, capture_output=True, check=True
    )
    assert float(told.stdout) > time.time() + 29 * YEAR_S  # except for the jump
    with Process(tmp_path, broker.url, **env) as server, Devices(broker.url, COUNT) as devices:
        for times, years in enumerate((0, 30, -20, 10, -1), 1):
            server.wait_for(f"round {2 * times}:")
            jump(years)
        rounds = rounds_of(tmp_path / "f.sqlite") + 2
        until(lambda: rounds_of(tmp_path / "f.sqlite") >= rounds, lambda: server.output)
        server.interrupt()
        assert_exact(tmp_path / "f.sqlite", devices.trainers, rounds)
    store = Store(tmp_path / "f.sqlite", LAYOUT, model_of(0))
    assert all(0 <= record["seconds"] < YEAR_S for record in store.rounds.records())
    store.close()


def test_the_machine_is_suspended(tmp_path: Path, broker: Broker) -> None:
    """A machine suspended for longer than any deadline: the server reports it and continues with the updates it has."""
    policy = "goal = 1.0\nsoft_deadline_s = 1.0\nhard_deadline_s = 2.0"
    path = tmp_path / "f.sqlite"
    with Process(tmp_path, broker.url, policy=policy) as server, Devices(broker.url, COUNT) as devices:
        trainer, suspended = devices.trainers[0], threading.Event()
        fit = trainer.fit

        def suspend(*arguments: Any) -> Any:
            trainer.fit = fit  # type: ignore[method-assign]  # as it was
            server.process.send_signal(signal.SIGSTOP)
            suspended.set()
            return fit(*arguments)

        trainer.fit = suspend  # type: ignore[assignment, method-assign]  # the trainer of one test
        until(suspended.is_set, lambda: server.output)
        time.sleep(4.0)  # the length of the suspension
        server.process.send_signal(signal.SIGCONT)
        server.wait_for("the server stood still for")
        rounds = rounds_of(path) + 2
        until(lambda: rounds_of(path) >= rounds, lambda: server.output)
        server.interrupt()
        with contextlib.closing(sqlite3.connect(path)) as db:
            models = dict(db.execute("SELECT round, elements FROM model WHERE round > 0"))
        some = [s for n in range(1, COUNT + 1) for s in itertools.combinations(devices.trainers, n)]
        for round, model in models.items():
            assert model in [mean(list(trainers), round).tobytes() for trainers in some]
