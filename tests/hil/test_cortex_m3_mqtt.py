# SPDX-License-Identifier: Apache-2.0
"""cortex_m3_mqtt under QEMU, through its Ethernet controller, lwIP and (or without) BearSSL, with a real mosquitto."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from certificates import Authority, Certificate
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from real_broker import Broker, until

from fedmote.datasets.digits import partition, split
from fedmote.model.initial import glorot
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote_device import CTrainer, Device

ROOT = Path(__file__).resolve().parents[2]
NAME = "cortex_m3_mqtt"
WIDTHS = (64, 32, 10)
ROUNDS = 2
WAIT_S = 300  # for what takes some ten seconds, unless others keep the machine busy
NOT_TRUSTED, BAD_SERVER_NAME, EXPIRED = 62, 56, 54  # BearSSL's errors
WAY = ("downloading", "checking", "working", "sealing", "offering", "uploading", "confirming")


def run(*command: str | Path) -> str:
    """Run a program, which must succeed; return its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Build:
    """Return a build folder. Later builds in it compile only what a setting changes."""

    folder: Path
    settings: tuple[str, ...] = ()

    def image(self, port: int) -> Path:
        """Build the firmware for a broker on this port of this machine."""
        run("cmake", "-S", ROOT / "firmware_examples" / NAME, "-B", self.folder, "-G", "Ninja",
            "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", f"-DFEDMOTE_BROKER=10.0.2.2:{port}", *self.settings)  # fmt: skip
        said = run("cmake", "--build", self.folder)
        assert "warning" not in said.lower()
        return self.folder / f"{NAME}.elf"


@pytest.fixture(scope="module")
def sources() -> None:
    """lwIP and BearSSL."""
    run(ROOT / "firmware_examples" / "fetch_sources.sh")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, sources: None) -> Build:
    return Build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, sources: None, authority: Authority) -> Build:
    settings = ("-DFEDMOTE_TLS=ON", f"-DFEDMOTE_CA_FILE={authority.file}", "-DFEDMOTE_BROKER_NAME=localhost")
    return Build(tmp_path_factory.mktemp("tls"), settings)


class Board:
    """An image under QEMU. Its Ethernet is in QEMU's own network, where 10.0.2.2 is this machine."""

    def __init__(self, elf: Path, folder: Path) -> None:
        self._log, self._monitor = folder / "device.log", folder / "monitor"
        self.command = ["qemu-system-arm", "-M", "mps2-an385", "-kernel", str(elf), "-display", "none",
                        "-serial", "none", "-nic", "user,model=lan9118",
                        "-monitor", f"unix:{self._monitor},server=on,wait=off",
                        "-chardev", f"file,id=log,path={self._log}",
                        "-semihosting-config", "enable=on,target=native,chardev=log"]  # fmt: skip

    def __enter__(self) -> Board:
        self._qemu = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        self._qemu.terminate()
        self._qemu.wait()

    def reset(self) -> None:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._monitor))
            monitor.sendall(b"system_reset\n")
            heard = b""
            while heard.count(b"(qemu)") < 2:  # before the command, and when it is done
                heard += monitor.recv(4096)

    @property
    def lines(self) -> list[str]:
        """Return what it logged, in whole lines."""
        text = self._log.read_text() if self._log.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()


@contextmanager
def running(broker: Broker) -> Iterator[Broker]:
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def serve(
    url: str, ca_file: Path | None = None, on_round: Callable[[Record], None] | None = None
) -> tuple[NDArray[np.float32], list[Record]]:
    """Run two rounds with the real server."""
    records: list[Record] = []

    def committed(record: Record) -> None:
        records.append(record)
        if on_round is not None:
            on_round(record)

    layout = dense(WIDTHS)
    policy = Policy(chunk_elements=128, encodings=("float32",), soft_deadline_s=WAIT_S, hard_deadline_s=WAIT_S)
    server = Server(
        Federation("digits", layout, url, Training(epochs=2, batch_size=16), policy, initial=glorot(layout, 1),
                   ca_file=ca_file),
        on_round=committed,
    )  # fmt: skip
    asyncio.run(asyncio.wait_for(server.run(ROUNDS), WAIT_S))
    return server.model, records


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the model that the server gets with the same device on this machine, without emulation."""
    rng = np.random.default_rng(1)
    x, y, _, _ = split(rng)
    mine = partition(y, 10, 1.0, rng)[0]
    with running(Broker(tmp_path_factory.mktemp("desktop"))) as broker:
        device = Device(NAME, broker.url, federation="digits", trainer=CTrainer(WIDTHS, x[mine], y[mine]),
                        seed=zlib.crc32(NAME.encode()), delta=True)  # fmt: skip
        done = threading.Event()
        thread = threading.Thread(target=device.run, kwargs={"until": lambda _: done.is_set(), "timeout_s": WAIT_S})
        thread.start()
        try:
            model, _ = serve(broker.url)
        finally:
            done.set()
            thread.join()
            device.close()
    assert model.tobytes() != glorot(dense(WIDTHS), 1).tobytes()
    return model.tobytes()


def check(board: Board, model: NDArray[np.float32], records: list[Record], expected: bytes) -> None:
    """Two full rounds, step by step, give the desktop device's model."""
    assert [(r.round, r.reported, r.partial) for r in records] == [(1, 1, 0), (2, 1, 0)]
    lines = [line for line in board.lines if not line.startswith("chunk ")]
    assert lines[0] == "boot restored=0 round=0"
    assert not [line for line in lines if line.startswith("fault")]
    for number in (1, 2):
        first = lines.index(f"state downloading round={number}")
        assert lines[first : first + len(WAY)] == [f"state {name} round={number}" for name in WAY]
    assert model.tobytes() == expected


def test_rounds(plain: Build, tmp_path: Path, expected: bytes) -> None:
    broker = Broker(tmp_path)
    with running(broker), Board(plain.image(broker.port), tmp_path) as board:
        model, records = serve(broker.url)
    check(board, model, records, expected)


def test_rounds_over_tls(tls: Build, tmp_path: Path, authority: Authority, expected: bytes) -> None:
    """Device and server both use TLS. The device has the authority's certificate from its build alone."""
    broker = Broker(tmp_path, tls=authority.issue("localhost"))
    with running(broker), Board(tls.image(broker.tls_port), tmp_path) as board:
        model, records = serve(broker.tls_url, authority.file)
    check(board, model, records, expected)
    assert len(re.findall(f" on port {broker.tls_port}[.]\n", broker.log)) >= 3  # its opening, server, device


def test_a_reset_between_rounds(plain: Build, tmp_path: Path, expected: bytes) -> None:
    """The board restarts after the first round's commit, remembers the model, and does the second round."""
    broker = Broker(tmp_path)
    with running(broker), Board(plain.image(broker.port), tmp_path) as board:

        def reset(record: Record) -> None:
            if record.round == 1:
                board.reset()

        model, records = serve(broker.url, on_round=reset)
    assert [(r.round, r.reported) for r in records] == [(1, 1), (2, 1)]
    boots = [line for line in board.lines if line.startswith("boot")]
    assert boots[0] == "boot restored=0 round=0"
    assert len(boots) == 2 and boots[1].startswith("boot restored=") and boots[1] != boots[0]
    assert model.tobytes() == expected


def test_an_address_by_dhcp(tmp_path: Path, sources: None, expected: bytes) -> None:
    """The firmware has no fixed address here; it gets one by DHCP from QEMU's network."""
    broker = Broker(tmp_path)
    build = Build(tmp_path / "build", ("-DFEDMOTE_DHCP=ON", "-DFEDMOTE_ADDRESS="))
    with running(broker), Board(build.image(broker.port), tmp_path) as board:
        model, records = serve(broker.url)
    check(board, model, records, expected)


def publish(port: int, topic: str, count: int) -> None:
    """Publish messages of three bytes, and wait until the broker has taken all."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(count)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for message in [client.publish(topic, b"???", qos=1) for _ in range(count)]:
        message.wait_for_publish(WAIT_S)
    client.disconnect()
    client.loop_stop()


def test_many_small_messages(plain: Build, tmp_path: Path, expected: bytes) -> None:
    """What nobody understands comes in segments of some fifty bytes, and the server's own messages behind them: the
    broker sends these on only as the device acknowledges those."""
    broker = Broker(tmp_path)
    with running(broker), Board(plain.image(broker.port), tmp_path) as board:
        asyncio.run(until(lambda: f" as digits.{NAME} " in broker.log))
        publish(broker.port, f"fm/1/digits/dn/{NAME}", 1000)
        model, records = serve(broker.url)
    check(board, model, records, expected)


def test_a_broker_that_comes_back(tls: Build, tmp_path: Path, authority: Authority, expected: bytes) -> None:
    """The broker restarts after the first round, and the device connects with TLS again."""
    broker = Broker(tmp_path, persistent=True, tls=authority.issue("localhost"))

    def restart(record: Record) -> None:
        if record.round == 1:
            broker.stop()
            broker.start()

    with running(broker), Board(tls.image(broker.tls_port), tmp_path) as board:
        model, records = serve(broker.tls_url, authority.file, restart)
    assert [(r.round, r.reported) for r in records] == [(1, 1), (2, 1)]
    assert not [line for line in board.lines if line.startswith("fault")]
    assert model.tobytes() == expected


def refused(tls: Build, folder: Path, shown: Certificate, error: int) -> None:
    """The device ends the handshake each time, and the broker never learns its name."""
    broker = Broker(folder, tls=shown)
    with running(broker), Board(tls.image(broker.tls_port), folder) as board:
        asyncio.run(until(lambda: len(faults(board)) >= 2 and broker.connections >= 2))
    assert set(faults(board)) == {f"fault tls error={error}"}
    assert "New client connected" not in broker.log


def faults(board: Board) -> list[str]:
    return [line for line in board.lines if line.startswith("fault")]


def test_a_certificate_of_another_authority_is_refused(tls: Build, tmp_path: Path) -> None:
    """The certificate is for the same host, but signed by another authority."""
    refused(tls, tmp_path, Authority(tmp_path / "other").issue("localhost"), NOT_TRUSTED)


def test_a_certificate_for_another_host_is_refused(tls: Build, tmp_path: Path, authority: Authority) -> None:
    refused(tls, tmp_path, authority.issue("elsewhere.example"), BAD_SERVER_NAME)


def test_an_expired_certificate_is_refused(tls: Build, tmp_path: Path, authority: Authority) -> None:
    """The device takes the time from its board."""
    refused(tls, tmp_path, authority.issue("localhost", days=-1), EXPIRED)
