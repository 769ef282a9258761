# SPDX-License-Identifier: Apache-2.0
"""Three examples that learn to tell points apart, from a real server over mosquitto: for POSIX, Zephyr and ESP-IDF.

The two frameworks cannot be had here. Their examples and adapters are configured, compiled and run with stand-ins
(tests/csdk/stand_ins) whose functions are declared as the framework's and do on POSIX what the framework's do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cffi
import kconfiglib
import numpy as np
import pytest
import yaml
from real_broker import LONG_S, Broker
from waiting import until

from fedmote.config.settings import load
from fedmote.faults.cable import Cable
from fedmote.links.serial import Port
from fedmote.model.layout import dense
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "firmware_examples"
STAND_INS = ROOT / "tests/csdk/stand_ins"
ROUNDS = 4
WAIT_S = 120.0  # for what takes a second or two, unless others keep the machine busy
NOR_SIZE = 16384
Values = dict[str, str]


# ---- building


def build(example: str, folder: Path, *options: str, **env: str) -> Path:
    """Configure and compile an example by its own CMakeLists.txt, with warnings as errors, under the sanitizers."""
    env = {**os.environ, **env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    flags = ["-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", "-DCMAKE_BUILD_TYPE=Debug"]
    flags += ["-DCMAKE_C_FLAGS=-fsanitize=address,undefined -fno-sanitize-recover=all"]
    commands: tuple[list[str | Path], ...] = (
        ["cmake", "-G", "Ninja", "-S", EXAMPLES / example, "-B", folder, *flags, *options],
        ["cmake", "--build", folder],
    )
    for command in commands:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def posix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program for POSIX."""
    return build("posix_gateway_device", tmp_path_factory.mktemp("posix")) / "posix_gateway_device"


def configured(kconfig: Path, settings: Path | None, header: Path, values: Values) -> kconfiglib.Kconfig:
    """Read a Kconfig as the framework would, set what the project's own file and `values` set, write the header."""
    config = kconfiglib.Kconfig(str(kconfig), warn_to_stderr=False)
    if settings is not None:
        config.load_config(str(settings))
    for name, value in values.items():
        assert config.syms[name].set_value(value)
    assert config.warnings == []
    header.parent.mkdir(parents=True, exist_ok=True)
    config.write_autoconf(str(header))
    return config


def zephyr(broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Zephyr's example with a Kconfig and functions that stand in."""
    values = {"APP_DEVICE_ID": "unit-1", "APP_BROKER_HOST": "127.0.0.1", "APP_BROKER_PORT": str(broker.port)}
    monkeypatch.setenv("srctree", str(STAND_INS / "zephyr"))  # where Kconfig.zephyr is
    monkeypatch.setenv("FEDMOTE_DIR", str(ROOT))
    header = folder / "autoconf.h"
    config = configured(EXAMPLES / "zephyr/Kconfig", EXAMPLES / "zephyr/prj.conf", header, values)
    symbols = [s for s in config.unique_defined_syms if s.str_value not in ("", "n")]
    options = [f"-DCONFIG_{s.name}={s.str_value}" for s in symbols]
    options += [f"-DAUTOCONF={header}", f"-DZephyr_DIR={STAND_INS / 'zephyr/cmake'}"]
    return build("zephyr", folder / "build", *options) / "app"


def esp_idf(broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ESP-IDF's example with a project.cmake and functions that stand in."""
    values = {"APP_DEVICE_ID": "unit-1", "APP_BROKER_HOST": "127.0.0.1", "APP_BROKER_PORT": str(broker.port)}
    header = folder / "build/config/sdkconfig.h"
    configured(EXAMPLES / "esp_idf/main/Kconfig.projbuild", None, header, values)
    return build("esp_idf", folder / "build", IDF_PATH=str(STAND_INS / "esp_idf")) / "fedmote_device.elf"


# ---- running


@contextmanager
def running(program: Path, *arguments: str, end: signal.Signals = signal.SIGTERM, **env: str) -> Iterator[list[str]]:
    """Run the device until the block ends; yield what it prints."""
    lines: list[str] = []
    process = subprocess.Popen(
        [program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env}
    )
    printed = process.stdout
    assert printed is not None

    def read() -> None:
        for line in printed:
            lines.append(line.rstrip("\n"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lines
    finally:
        process.send_signal(end)
        process.wait(WAIT_S)
        reader.join()
        printed.close()
    assert process.returncode == (0 if end == signal.SIGTERM else -end), lines


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Run a mosquitto."""
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder)
    broker.start()
    yield broker
    broker.stop()


def points(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the devices' examples, made by their own code."""
    library = folder / "examples.so"
    subprocess.run(["cc", "-shared", "-fPIC", EXAMPLES / "points/examples.c", "-o", library], check=True)
    ffi = cffi.FFI()
    ffi.cdef("void examples_read(void *user, uint32_t index, float *features, uint32_t *label);")
    code: Any = ffi.dlopen(str(library))
    x, y = np.zeros((200, 2), np.float32), np.zeros(200, np.uint32)
    for i in range(200):
        code.examples_read(
            ffi.NULL, i, ffi.from_buffer("float *", x[i].data), ffi.from_buffer("uint32_t *", y[i : i + 1].data)
        )
    return x, y


def accuracy(model: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the accuracy of a network 2-8-2, whose parameters are one flat array."""
    k0, b0, k1, b1 = np.split(model, [16, 24, 40])
    hidden = np.maximum(x @ k0.reshape(2, 8) + b0, 0)
    return float(np.mean(np.argmax(hidden @ k1.reshape(8, 2) + b1, axis=1) == y))


def settings(folder: Path, **others: Any) -> Federation:
    """Read the examples' federation.toml with some settings replaced, and with deadlines that a busy machine meets."""
    read = load(EXAMPLES / "posix_gateway_device/federation.toml")
    values = {f.name: getattr(read, f.name) for f in fields(Federation)}
    policy = replace(read.policy, soft_deadline_s=LONG_S, hard_deadline_s=LONG_S)
    return Federation(**(values | {"database": folder / "f.sqlite", "policy": policy} | others))


def federate(federation: Federation, rounds: int) -> tuple[Server, list[Record]]:
    """Run the server for so many rounds."""
    records: list[Record] = []
    server = Server(federation, on_round=records.append)
    asyncio.run(asyncio.wait_for(server.run(rounds), WAIT_S))
    return server, records


def assert_learned(server: Server, records: list[Record], folder: Path) -> None:
    """Each round has the device's whole update, and the model has learned its examples."""
    assert [(r.round, r.reported, r.partial) for r in records] == [(n, 1, 0) for n in range(1, ROUNDS + 1)]
    x, y = points(folder)
    assert 0.3 < np.mean(y) < 0.7
    assert accuracy(server.model, x, y) > 0.8


# ---- POSIX


def test_posix_over_mqtt(posix: Path, broker: Broker, tmp_path: Path) -> None:
    with running(posix, "unit-1", "points", "127.0.0.1", str(broker.port)) as lines:
        server, records = federate(settings(tmp_path, broker=broker.url), ROUNDS)
    assert_learned(server, records, tmp_path)
    assert "state 5 round 1" in lines
    until(lambda: "Client points.unit-1 disconnected." in broker.log)  # and did not just vanish


def test_the_smallest(posix: Path, broker: Broker, tmp_path: Path) -> None:
    """The shortest example takes part, too."""
    smallest = posix.with_name("smallest")
    with running(smallest, "unit-1", "127.0.0.1", str(broker.port), end=signal.SIGKILL):
        server, records = federate(settings(tmp_path, broker=broker.url), ROUNDS)
    assert_learned(server, records, tmp_path)
    assert subprocess.run([smallest], timeout=WAIT_S).returncode == 2


def test_a_layout_that_is_not_the_federations(
    posix: Path, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Server and device both report that the layouts differ. The server says why, once."""
    federation = settings(tmp_path, broker=broker.url, layout=dense((2, 4, 2)), initial=None)

    async def until_told() -> None:
        server = asyncio.create_task(Server(federation).run())
        while not any("is refused" in record.message for record in caplog.records):
            await asyncio.sleep(0.02)
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server

    with running(posix, "unit-1", "points", "127.0.0.1", str(broker.port)) as lines:
        asyncio.run(asyncio.wait_for(until_told(), WAIT_S))
        until(lambda: any("refused by broker or server, reason 2" in line for line in lines))
    told = [record.message for record in caplog.records if "is refused" in record.message]
    assert len(told) == 1 and told[0].startswith("unit-1 is refused: the model has 4 shared tensors, 22 elements")


def test_posix_over_a_serial_line(posix: Path, tmp_path: Path) -> None:
    with Cable() as cable:
        federation = settings(tmp_path, broker=None, ports=(Port(cable.ends[0]),))
        with running(posix, "unit-1", cable.ends[1]) as lines:
            server, records = federate(federation, ROUNDS)
    assert_learned(server, records, tmp_path)
    assert "state 5 round 1" in lines


@pytest.mark.parametrize(("arguments", "code", "said"), [
    ([], 2, "usage:"),
    (["no/name", "points", "127.0.0.1", "1883"], 1, "refused settings"),
])  # fmt: skip
def test_what_posix_does_not_take(arguments: list[str], code: int, said: str, posix: Path) -> None:
    done = subprocess.run([posix, *arguments], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == code
    assert said in done.stderr


# ---- frameworks


def after(lines: list[str], event: str) -> list[str]:
    """Return what follows an event's name, for each line of the log that has it."""
    return [line.split(event, 1)[1].strip() for line in lines if event in line]


@pytest.mark.parametrize("made", [zephyr, esp_idf], ids=["zephyr", "esp_idf"])
def test_a_framework_s_example_learns_and_remembers(
    made: Callable[[Broker, Path, pytest.MonkeyPatch], Path],
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its power is cut after the second round. It starts from what its partition kept."""
    program = made(broker, tmp_path, monkeypatch)
    flash = {"STAND_IN_FLASH": str(tmp_path / "flash")}
    federation = settings(tmp_path, broker=broker.url)
    with running(program, end=signal.SIGKILL, **flash) as before:
        _, first = federate(federation, 2)
    assert after(before, "boot ") == ["restored=0 round=0"]
    assert "working round=1" in after(before, "state ")
    assert (tmp_path / "flash").read_bytes() != b"\xff" * NOR_SIZE
    with running(program, end=signal.SIGKILL, **flash) as then:
        server, rest = federate(federation, ROUNDS)
    (boot,) = after(then, "boot restored=")
    assert int(boot.split()[0]) > 0
    assert_learned(server, [*first, *rest], tmp_path)


@pytest.mark.parametrize("made", [zephyr, esp_idf], ids=["zephyr", "esp_idf"])
def test_without_a_partition_it_learns_while_the_broker_comes_and_goes(
    made: Callable[[Broker, Path, pytest.MonkeyPatch], Path],
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At first there is no broker. Later it stops between two rounds and returns."""
    program = made(broker, tmp_path, monkeypatch)
    broker.stop()
    with running(program, end=signal.SIGKILL) as lines:
        broker.start()
        _, first = federate(settings(tmp_path, broker=broker.url), 2)
        broker.stop()
        broker.start()
        server, rest = federate(settings(tmp_path, broker=broker.url), ROUNDS)
    assert after(lines, "nothing outlives a reset") == [""]
    assert_learned(server, [*first, *rest], tmp_path)


def test_esp_idf_partition_table_has_room_for_the_model() -> None:
    rows = [
        [cell.strip() for cell in line.split(",")]
        for line in (EXAMPLES / "esp_idf/partitions.csv").read_text().splitlines()
        if not line.startswith("#")
    ]
    (fedmote,) = (row for row in rows if row[0] == "fedmote")
    assert fedmote[1] == "data"
    assert int(fedmote[4], 0) == NOR_SIZE  # what the stand-in has, where it was enough
    manifest = yaml.safe_load((EXAMPLES / "esp_idf/main/idf_component.yml").read_text())
    assert manifest["dependencies"].keys() == {"idf", "protocol_examples_common"}
