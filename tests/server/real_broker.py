# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every test with a real broker uses the broker, its clients and its proxy together.
"""A real mosquitto that can be killed, a TCP proxy that can damage packets, and a federation that uses both."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from certificates import Certificate
from numpy.typing import NDArray

from fedmote.fleet.limits import Limits
from fedmote.links.broker import reserve_port
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote.wire import codec
from fedmote_device import Device, run_many

WAIT_S = 120.0  # for what takes a second or two on an idle machine
LONG_S = 3600.0  # no round may end because the machine is busy
PATH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
Floats = NDArray[np.float32]


async def until(what: Callable[[], object]) -> None:
    """Run the event loop until the condition is true."""
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


class Broker:
    """mosquitto on one port, as often as wanted. With `users`, who may say what is limited to their own topic.

    With `tls` there is another port, which shows that certificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistent: bool = False,
        users: dict[str, str] | None = None,
        tls: Certificate | None = None,
    ) -> None:
        self.port = self._reserve_port()
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        lines = [f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", "set_tcp_nodelay true"]
        lines += ["max_queued_messages 0", f"persistence {str(persistent).lower()}"]
        lines += [f"persistence_location {folder}/", "autosave_on_changes true", "autosave_interval 1"]
        lines += [f"log_dest file {folder / 'log'}"]
        if users is None:
            lines += ["allow_anonymous true"]
        else:
            lines += ["allow_anonymous false", f"password_file {folder / 'passwords'}", f"acl_file {folder / 'acl'}"]
            (folder / "acl").write_text(
                "pattern write fm/1/f/up/+/%u\npattern read fm/1/f/dn/%u\n"
                "pattern read fm/1/f/all\npattern read fm/1/f/model/#\nuser server\ntopic readwrite fm/1/f/#\n"
            )
            self.set_users(users)
        if tls is not None:
            self.tls_port = self._reserve_port()
            lines += [f"listener {self.tls_port} 127.0.0.1", f"certfile {tls.certificate}", f"keyfile {tls.key}"]
        (folder / "conf").write_text("\n".join(lines) + "\n")

    def _reserve_port(self) -> int:
        """Reserve a port that stays this broker's, also while the broker is down."""
        holder = reserve_port()
        weakref.finalize(self, holder.close)
        return int(holder.getsockname()[1])

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"mqtts://localhost:{self.tls_port}"

    def set_users(self, users: dict[str, str]) -> None:
        """Replace the password file; the broker reads it when it starts."""
        passwords = self.folder / "passwords"
        passwords.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
        passwords.chmod(0o600)
        subprocess.run([shutil.which("mosquitto_passwd", path=PATH) or "", "-U", str(passwords)], check=True)

    @property
    def log(self) -> str:
        """Return the log of all starts of the broker."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    @property
    def connections(self) -> int:
        """Return how many connections the broker's log shows on its ports; the log may be a little late."""
        return len(re.findall(r"New connection from \S+ on port |Client connection from \S+ failed: ", self.log))

    def start(self) -> None:
        before = len(self.log)
        self.process = subprocess.Popen(
            [shutil.which("mosquitto", path=PATH) or "", "-c", str(self.folder / "conf")], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + WAIT_S
        while " running" not in self.log[before:]:  # all ports are open; a probe would be a connection
            assert self.process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.005)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


@dataclass(slots=True)
class Packet:
    """One MQTT packet on its way through the proxy."""

    up: bool  # to the broker
    client: str  # client identifier of the connection
    raw: bytes

    @property
    def kind(self) -> int:
        return self.raw[0] >> 4

    @property
    def qos(self) -> int:
        return self.raw[0] >> 1 & 3

    @property
    def message(self) -> str:
        """Return the name of the message that a PUBLISH carries, or "" for any other packet."""
        if self.kind != PUBLISH:
            return ""
        body = codec.decode(self.raw[self._topic_end + (2 if self.qos else 0) :])
        return type(body).__name__ if body else ""

    @property
    def topic(self) -> str:
        """Return the topic of a PUBLISH."""
        return self.raw[_body(self.raw) + 2 : self._topic_end].decode()

    @property
    def identifier(self) -> bytes:
        """Return the packet identifier, which a PUBACK shares with the PUBLISH of QoS 1 that it answers."""
        at = self._topic_end if self.kind == PUBLISH else _body(self.raw)
        return self.raw[at : at + 2]

    @property
    def _topic_end(self) -> int:
        at = _body(self.raw)
        return at + 2 + int.from_bytes(self.raw[at : at + 2], "big")


CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4


def _body(raw: bytes | bytearray) -> int:
    """Return where the variable header starts."""
    at = 1
    while raw[at] & 0x80:
        at += 1
    return at + 1


def _packet_size(raw: bytearray) -> int | None:
    length = 0
    for i, byte in enumerate(raw[1:5]):
        length |= (byte & 0x7F) << 7 * i
        if not byte & 0x80:
            return 2 + i + length
    return None


@dataclass(eq=False)
class _Side:
    socket: socket.socket
    up: bool
    pair: Any = None  # the other side
    client: list[str] = field(default_factory=lambda: [""])
    buffer: bytearray = field(default_factory=bytearray)


class Cut(Exception):
    """Raised by a rule: forward these bytes, then break the connection on both sides."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first


class Proxy:
    """Passes packets on, one thread for all connections. `rule` makes of each packet what is forwarded.

    Rules run in the proxy's thread. Connections of the clients in `stalled` stay open while nothing passes.
    """

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        self.rule: Callable[[Packet], bytes] = lambda packet: packet.raw
        self.stalled: set[str] = set()
        self.error: BaseException | None = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[str] = []  # client identifiers, in the order of connection
        self._closing = False
        self._sides: set[_Side] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self.listener.close()
        assert self.error is None, self.error

    def _run(self) -> None:
        try:
            while not self._closing:
                for side in [side for side in self._sides if side.buffer]:
                    self._pass_on(side)  # bytes held back by a stall
                with selectors.DefaultSelector() as selector:
                    selector.register(self.listener, selectors.EVENT_READ)
                    for side in self._sides:
                        if side.client[0] not in self.stalled:
                            selector.register(side.socket, selectors.EVENT_READ, side)
                    for key, _ in selector.select(0.02):
                        if key.data is None:
                            self._accept()
                        elif key.data in self._sides:
                            self._read(key.data)
        except BaseException as error:
            self.error = error
        finally:
            for side in list(self._sides):
                side.socket.close()

    def _accept(self) -> None:
        device = _Side(self.listener.accept()[0], True)
        try:
            broker = _Side(socket.create_connection(("127.0.0.1", self.broker_port)), False, device, device.client)
        except OSError:
            device.socket.close()
            return
        device.pair = broker
        for side in (device, broker):
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sides.add(side)

    def _break(self, side: _Side) -> None:
        for end in (side, side.pair):
            end.socket.close()
            self._sides.discard(end)

    def _read(self, side: _Side) -> None:
        try:
            data = side.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._break(side)
            return
        side.buffer += data
        self._pass_on(side)

    def _pass_on(self, side: _Side) -> None:
        out = b""
        while side in self._sides and (size := _packet_size(side.buffer)) is not None and size <= len(side.buffer):
            raw = bytes(side.buffer[:size])
            if not side.client[0]:
                at = _body(raw) + 10
                side.client[0] = raw[at + 2 : at + 2 + int.from_bytes(raw[at : at + 2], "big")].decode()
                self.connections.append(side.client[0])
            if side.client[0] in self.stalled:
                break
            del side.buffer[:size]
            try:
                out += self.rule(Packet(side.up, side.client[0], raw))
            except Cut as cut:
                self._forward(side, out + cut.first)
                self._break(side)
                return
        self._forward(side, out)

    def _forward(self, side: _Side, data: bytes) -> None:
        try:
            side.pair.socket.sendall(data)
        except OSError:
            self._break(side)


class Known:
    """A NumPyClient with a known result: the sums are exact in float64 in any order."""

    def __init__(self, index: int, elements: int) -> None:
        self.index, self.elements = index, elements
        self.examples = 10 + 7 * index
        self.fits: list[int] = []

    def weights(self, round: int) -> Floats:
        numbers = np.random.default_rng([round, self.index]).integers(-(2**20), 2**20, self.elements)
        return (numbers / 1024).astype(np.float32)

    def get_parameters(self, config: dict[str, Any]) -> list[Floats]:
        return [np.zeros(self.elements, np.float32)]

    def fit(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[list[Floats], int, dict[str, float]]:
        self.fits.append(int(config["round"]))
        return [self.weights(int(config["round"]))], self.examples, {"loss": 1.0}

    def evaluate(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[float, int, dict[str, float]]:
        raise NotImplementedError


def mean(trainers: list[Known], round: int) -> Floats:
    """Return the exact model of the round if each device counted once."""
    total = sum(t.examples * t.weights(round).astype(np.float64) for t in trainers)
    return np.asarray(total / sum(t.examples for t in trainers)).astype(np.float32)


ELEMENTS, CHUNK = 1000, 16
CHUNKS = -(-ELEMENTS // CHUNK)
TRY_AGAIN_MS = (100, 400)


def federation(
    broker: str, folder: Path, count: int, elements: int = ELEMENTS, name: str = "f", **policy: Any
) -> Federation:
    """Return the settings of a federation that waits for `count` devices and for all of their updates."""
    layout = Layout((Tensor("parameter0", (elements,)),))
    wanted: dict[str, Any] = {"devices": count, "goal": 1.0, "chunk_elements": CHUNK, "encodings": ("float32",),
              "soft_deadline_s": LONG_S, "hard_deadline_s": LONG_S}  # fmt: skip
    return Federation(
        name, layout, broker, policy=Policy(**(wanted | policy)), limits=Limits(retry_ms=50),
        database=folder / f"{name}.sqlite", initial=np.zeros(elements, np.float32),
    )  # fmt: skip


class Devices:
    """Real C clients on a thread of their own."""

    def __init__(
        self, broker: str, count: int, elements: int = ELEMENTS, prefix: str = "d", password: str = "", **options: Any
    ) -> None:
        self.trainers = [Known(i, elements) for i in range(count)]
        settings: dict[str, Any] = {"federation": "f", "backoff_ms": TRY_AGAIN_MS, "retry_ms": TRY_AGAIN_MS}
        self.all = [
            Device(
                f"{prefix}{i}", broker.replace("//", f"//{prefix}{i}:{password}@") if password else broker,
                trainer=trainer, seed=i + 1, **(settings | options),
            )
            for i, trainer in enumerate(self.trainers)
        ]  # fmt: skip
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            run_many(self.all, self._stop.is_set)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Devices:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for device in self.all:
            device.close()
        assert self.error is None, self.error

    def sum(self, counter: str) -> int:
        return sum((d.counters | d.link_counters)[counter] for d in self.all)

    @property
    def fits(self) -> list[list[int]]:
        return [trainer.fits for trainer in self.trainers]


async def serve(server: Server, rounds: int, during: Callable[[], Awaitable[None]] | None = None) -> None:
    """Run the server until the round is committed; run `during` at the same time."""
    started = asyncio.Event()
    task = asyncio.create_task(server.run(rounds, started.set))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([task, waiting], timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        if during is not None and not task.done():
            await during()
    except BaseException:
        task.cancel()
        raise
    await asyncio.wait_for(task, WAIT_S)
