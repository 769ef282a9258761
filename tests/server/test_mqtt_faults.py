# SPDX-License-Identifier: Apache-2.0
# Over 350 lines: every case needs the same broker, proxy and hostile client.
"""The real server and real C clients on a real mosquitto that fails: every update counts once, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import select
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from real_broker import (
    CHUNK,
    CHUNKS,
    ELEMENTS,
    LONG_S,
    PUBACK,
    PUBLISH,
    WAIT_S,
    Broker,
    Cut,
    Devices,
    Packet,
    Proxy,
    federation,
    mean,
    serve,
    until,
)  # fmt: skip

from fedmote.fleet.limits import Limits
from fedmote.links.mqtt import MqttLink
from fedmote.model.layout import Layout
from fedmote.rounds.record import Record
from fedmote.rounds.synchronous import SynchronousRounds
from fedmote.server.server import Server
from fedmote.wire import codec
from fedmote.wire.Refusal import Refusal
from fedmote.wire.RefusalReason import RefusalReason

SYN_SENT = "02"  # in /proc/net/tcp
MakeBroker = Callable[..., Broker]
MakeProxy = Callable[[Broker], Proxy]


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[MakeBroker]:
    made: list[Broker] = []

    def make(started: bool = True, **options: Any) -> Broker:
        made.append(Broker(tmp_path, **options))
        if started:
            made[-1].start()
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    made: list[Proxy] = []

    def make(broker: Broker) -> Proxy:
        made.append(Proxy(broker.port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def planned_by(server: Server) -> list[str]:
    """Return the devices that were sent the plan of the present round."""
    assert isinstance(server.rounds, SynchronousRounds)
    return server.rounds.cohort.planned


def new_server(broker: str, folder: Path, count: int, **policy: Any) -> tuple[Server, list[Record]]:
    records: list[Record] = []
    return Server(federation(broker, folder, count, **policy), on_round=records.append), records


def assert_each_once(server: Server, devices: Devices, records: list[Record], rounds: int = 1) -> None:
    """Assert that each device is in the model once and in full, and trained once per round."""
    count = len(devices.all)
    assert [(r.round, r.reported, r.partial) for r in records] == [(n, count, 0) for n in range(1, rounds + 1)]
    assert np.array_equal(server.model, mean(devices.trainers, rounds))
    assert devices.fits == [list(range(1, rounds + 1))] * count


def test_nothing_goes_wrong(tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy) -> None:
    """Without faults there are three rounds, and each chunk is sent once."""
    broker = make_broker()
    proxy = make_proxy(broker)
    server, records = new_server(broker.url, tmp_path, 4)
    with Devices(proxy.url, 4, retry_ms=(60_000, 60_000)) as devices:  # no answer is late enough to be requested again
        asyncio.run(serve(server, 3))
        assert_each_once(server, devices, records, 3)
        assert devices.sum("chunks_out") == 3 * 4 * CHUNKS
        assert sorted(proxy.connections) == ["f.d0", "f.d1", "f.d2", "f.d3"]


def test_asynchronous_rounds_and_a_server_that_restarts(tmp_path: Path, make_broker: MakeBroker) -> None:
    """After a restart, the second server does not ask again for updates that the first one committed."""
    broker = make_broker()
    with Devices(broker.url, 6) as devices:
        records: list[Record] = []
        for last in (4, 8):
            server, more = new_server(broker.url, tmp_path, 2, buffer=3, max_staleness=2)
            asyncio.run(serve(server, last))
            server.store.close()
            records += more
        assert [r.round for r in records] == list(range(1, 9)) and all(r.reported >= 3 for r in records)
        assert all(fits == sorted(set(fits)) for fits in devices.fits)  # a device trains once for the plan of a round
        folded = sum(r.reported for r in records)
        asyncio.run(until(lambda: devices.sum("updates") >= folded))
        # Updates that the first server had folded but not committed are received again.
        assert folded <= devices.sum("updates") <= folded + 6


# ---- the broker refuses, or is not running


def test_no_broker_yet(tmp_path: Path, make_broker: MakeBroker) -> None:
    """Devices whose TCP connection is refused connect as soon as the broker runs."""
    broker = make_broker(started=False)
    server, records = new_server(broker.url, tmp_path, 3)
    with Devices(broker.url, 3) as devices:

        async def late() -> None:
            with pytest.raises(ConnectionError, match=r"no MQTT broker at 127\.0\.0\.1"):
                await server.run(1)
            await until(lambda: all(d.link_counters["failures"] >= 2 for d in devices.all))
            assert devices.sum("connections") == 0
            broker.start()
            await serve(server, 1)

        asyncio.run(late())
        assert_each_once(server, devices, records)


def test_a_wrong_password(tmp_path: Path, make_broker: MakeBroker) -> None:
    """A device refused in the broker's CONNACK keeps trying, and takes part once the broker accepts it."""
    users = {"server": "s", "d0": "x", "d1": "x"}
    broker = make_broker(users=users | {"d1": "another"})
    server, records = new_server(broker.url.replace("//", "//server:s@"), tmp_path, 2)
    with Devices(broker.url, 2, password="x") as devices:

        async def let_in() -> None:
            await until(lambda: devices.all[1].link_counters["refused"] >= 3 and devices.all[0].online)
            refused = devices.all[1].link_counters
            assert refused["last_return_code"] in (4, 5) and refused["connections"] == 0
            assert devices.all[1].state == "offline" and records == []
            broker.stop()
            broker.set_users(users)
            broker.start()

        asyncio.run(serve(server, 1, let_in))
        assert_each_once(server, devices, records)
        assert devices.all[0].link_counters["refused"] == 0


def test_the_server_has_a_wrong_password(tmp_path: Path, make_broker: MakeBroker) -> None:
    """The error says that the broker refused the server, and what to check."""
    broker = make_broker(users={"server": "s"})
    server, _ = new_server(broker.url.replace("//", "//server:wrong@"), tmp_path, 1)
    with pytest.raises(ConnectionError, match=r"did not let the server in \(Not authorized\); check user, password"):
        asyncio.run(server.run(1))


# ---- the broker dies


@pytest.mark.parametrize(
    ("persistent", "how"), [(False, signal.SIGKILL), (True, signal.SIGKILL), (True, signal.SIGTERM)]
)
def test_the_broker_restarts_in_mid_upload(
    tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy, persistent: bool, how: signal.Signals
) -> None:
    broker = make_broker(persistent=persistent)
    proxy = make_proxy(broker)
    server, records = new_server(broker.url, tmp_path, 4)
    chunks, restarts = Counter[int](), 0  # chunks, by the number of broker restarts before their connection

    def rule(packet: Packet) -> bytes:
        nonlocal restarts
        if packet.up and packet.message == "UpdateChunk" and proxy.connections.count(packet.client) > restarts:
            chunks[restarts] += 1
            if restarts < 2 and chunks[restarts] == 2 * CHUNKS // (1 + restarts):
                broker.stop(how)
                broker.start()
                restarts += 1
        return packet.raw

    proxy.rule = rule
    with Devices(proxy.url, 4) as devices:
        asyncio.run(serve(server, 1))
        assert restarts == 2 and chunks[2] > 0
        asyncio.run(until(lambda: all(d.link_counters["connections"] >= 2 for d in devices.all)))
        assert_each_once(server, devices, records)


def test_links_break_at_any_packet(tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy) -> None:
    """Each connection of a device breaks within a packet, each time further on, in either direction."""
    broker = make_broker()
    proxy = make_proxy(broker)
    server, records = new_server(broker.url, tmp_path, 3)
    packets: Counter[str] = Counter()

    def rule(packet: Packet) -> bytes:
        packets[packet.client] += 1
        connection = proxy.connections.count(packet.client)
        if packets[packet.client] >= 7 * connection and connection <= 25:
            packets[packet.client] = 0
            raise Cut(packet.raw[: len(packet.raw) * (connection % 4) // 3])
        return packet.raw

    proxy.rule = rule
    with Devices(proxy.url, 3, backoff_ms=(10, 20)) as devices:
        asyncio.run(serve(server, 1))
        assert len(proxy.connections) > 3 * 10
        assert devices.sum("chunks_resumed_in") > 0
        assert_each_once(server, devices, records)


@dataclass
class AwayDevice:
    """Rules for two proxies: d1 is offline after its Welcome, and its will does not reach the server."""

    proxy: Proxy
    away: threading.Event = field(default_factory=threading.Event)
    in_session: threading.Event = field(default_factory=threading.Event)  # the broker has its plan
    back: list[str] = field(default_factory=list)  # messages sent after the device was back
    plan: bytes = b""

    def rule(self, packet: Packet) -> bytes:
        if packet.client == "f.d1":
            if self.away.is_set():
                raise Cut
            if self.proxy.connections.count("f.d1") > 1:
                self.back.append(packet.message)
            elif packet.message == "Welcome":
                self.away.set()
                raise Cut(packet.raw)
        return packet.raw

    def server_rule(self, packet: Packet) -> bytes:
        """The server believes that d1 is online."""
        if packet.kind == PUBLISH and packet.topic.endswith("/d1"):
            if packet.message == "DeviceState":
                return b""
            if packet.message == "Plan" and not self.plan:
                self.plan = packet.identifier
        elif packet.kind == PUBACK and not packet.up and self.plan == packet.identifier:
            self.in_session.set()
        return packet.raw


@pytest.mark.parametrize("kept", [True, False])
def test_a_plan_for_a_device_that_is_away(
    tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy, kept: bool
) -> None:
    """The plan waits in the broker's session. If the broker lost the session, Hello brings the plan again."""
    broker = make_broker()
    proxy, server_proxy = make_proxy(broker), make_proxy(broker)
    server, records = new_server(server_proxy.url, tmp_path, 3)
    d1 = AwayDevice(proxy)
    proxy.rule, server_proxy.rule = d1.rule, d1.server_rule
    late = Devices(proxy.url, 1, prefix="late")
    with Devices(proxy.url, 2) as first, ExitStack() as then:
        absent = first.all[1]

        async def come_back() -> None:
            await until(lambda: d1.away.is_set() and absent.state == "offline")
            assert planned_by(server) == []
            then.enter_context(late)  # the third device, for which the round waited
            await until(d1.in_session.is_set)
            assert planned_by(server) == ["d0", "d1", "late0"] and absent.state == "offline"
            if not kept:
                broker.stop(signal.SIGKILL)
                broker.start()
            d1.away.clear()

        asyncio.run(serve(server, 1, come_back))
        assert bool(absent.link_counters["session_present"]) is kept
        assert "Plan" in d1.back[d1.back.index("Hello") :]
        assert ("Plan" in d1.back[: d1.back.index("Hello")]) is kept
        assert [(r.reported, r.partial) for r in records] == [(3, 0)]
        assert np.array_equal(server.model, mean(first.trainers + late.trainers, 1))
        assert first.fits + late.fits == [[1]] * 3


# ---- messages delivered twice, or not acknowledged


def doubled(packet: Packet) -> bytes:
    """Return the packet, twice if MQTT allows that: at QoS 1, with DUP."""
    if packet.kind != PUBLISH:
        return packet.raw
    return packet.raw + bytes([packet.raw[0] | (8 if packet.qos else 0)]) + packet.raw[1:]


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_every_message_is_delivered_twice(
    tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy, encoding: str
) -> None:
    """A message is delivered twice on each of two hops, so four times, in both directions."""
    broker = make_broker()
    proxy, server_proxy = make_proxy(broker), make_proxy(broker)
    proxy.rule = server_proxy.rule = doubled
    server, records = new_server(server_proxy.url, tmp_path, 3, encodings=(encoding,))
    with Devices(proxy.url, 3, encoding=encoding) as devices:
        asyncio.run(serve(server, 2))
        counters = server.fleet.counters
        assert counters["messages"] >= 4 * 2 * 3 * CHUNKS and devices.sum("unexpected") > 0
        assert [(r.reported, r.partial) for r in records] == [(3, 0)] * 2
        assert [r.examples for r in records] == [sum(t.examples for t in devices.trainers)] * 2
        asyncio.run(until(lambda: devices.sum("updates") >= 6))  # the last receipt may still be on its way
        assert devices.fits == [[1, 2]] * 3 and devices.sum("updates") == 6
        if encoding == "float32":
            assert np.array_equal(server.model, mean(devices.trainers, 2))
        else:  # of a range of 2048, int8 loses less than a step of 2048 / 254
            assert np.abs(server.model - mean(devices.trainers, 2)).max() < 2048 / 254


def test_acknowledgements_are_lost(tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy) -> None:
    """Every third PUBACK is lost: the connection breaks and both sides send again, with DUP."""
    broker = make_broker()
    proxy = make_proxy(broker)
    server, records = new_server(broker.url, tmp_path, 3)
    acknowledgements: Counter[tuple[str, bool]] = Counter()
    again: Counter[bool] = Counter()

    def rule(packet: Packet) -> bytes:
        if packet.kind == PUBLISH and packet.raw[0] & 8:
            again[packet.up] += 1
        if packet.kind == PUBACK:
            acknowledgements[packet.client, packet.up] += 1
            if acknowledgements[packet.client, packet.up] in (2, 3, 5, 8):
                raise Cut
        return packet.raw

    proxy.rule = rule
    with Devices(proxy.url, 3, backoff_ms=(10, 20)) as devices:
        asyncio.run(serve(server, 1))
        assert again[False] > 0 and len(proxy.connections) > 6
        assert_each_once(server, devices, records)


# ---- the server dies, or a device stops sending


def serve_apart(broker: str, folder: Path, count: int) -> subprocess.Popen[bytes]:
    """Run the server in a process of its own, for one round."""
    code = (
        "import asyncio, pathlib, sys; sys.path.insert(0, sys.argv[4]); import fedmote, real_broker; "
        "federation = real_broker.federation(sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])); "
        "asyncio.run(fedmote.Server(federation).run(1))"
    )
    return subprocess.Popen([sys.executable, "-c", code, broker, str(folder), str(count), str(Path(__file__).parent)])


@pytest.mark.parametrize("message", ["UpdateChunk", "Receipt"])
def test_the_server_is_killed_in_mid_round(
    tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy, message: str
) -> None:
    """No device loses its link, so the next server must ask for the updates that the killed one had in memory."""
    broker = make_broker()
    proxy = make_proxy(broker)
    servers = [serve_apart(broker.url, tmp_path, 3)]
    seen: Counter[str] = Counter()

    def rule(packet: Packet) -> bytes:
        seen[packet.message] += 1
        if packet.message == message and seen[message] == 2 and len(servers) == 1:
            servers[0].kill()
            servers[0].wait()
            servers.append(serve_apart(broker.url, tmp_path, 3))
        return packet.raw

    proxy.rule = rule
    with Devices(proxy.url, 3) as devices:
        asyncio.run(until(lambda: len(servers) == 2))
        assert servers[1].wait(WAIT_S) == 0
        assert devices.fits == [[1]] * 3 and len(proxy.connections) == 3
        server, _ = new_server(broker.url, tmp_path, 3)  # opens the database of the other two servers
        assert [r["reported"] for r in server.store.rounds.records()] == [3]
        assert np.array_equal(server.model, mean(devices.trainers, 1))


def test_a_silent_connection(tmp_path: Path, make_broker: MakeBroker, make_proxy: MakeProxy) -> None:
    """On a silent connection both ends notice, the will is published, and the update still counts once."""
    broker = make_broker()
    proxy = make_proxy(broker)
    server, records = new_server(broker.url, tmp_path, 3)
    chunks = before = 0

    def rule(packet: Packet) -> bytes:
        nonlocal chunks, before
        if packet.client == "f.silent0" and packet.up and packet.message == "UpdateChunk":
            chunks += 1
            if chunks == CHUNKS // 2:
                before = proxy.connections.count("f.silent0")
                proxy.stalled.add("f.silent0")
        return packet.raw

    proxy.rule = rule
    # Only this device: on a busy machine, so short a keep-alive would break the others' connections, too.
    silent = Devices(proxy.url, 1, prefix="silent", keep_alive_s=1)
    with Devices(proxy.url, 2) as others, silent:

        async def stall() -> None:
            await until(lambda: proxy.stalled and not server.fleet.sessions["silent0"].online)
            await until(lambda: proxy.connections.count("f.silent0") > before)  # it gave up one that is still open here
            assert records == [] and server.fleet.sessions["d0"].online
            proxy.stalled.clear()

        asyncio.run(serve(server, 1, stall))
        assert [(r.reported, r.partial, r.dropped) for r in records] == [(3, 0, 1)]
        assert silent.all[0].counters["chunks_resumed_out"] > 0
        assert np.array_equal(server.model, mean(others.trainers + silent.trainers, 1))
        assert others.fits + silent.fits == [[1]] * 3


# ---- hostile devices


class Hostile:
    """A hostile broker client with the access rights of one device."""

    def __init__(self, broker: Broker, device: str, password: str) -> None:
        self.device, self.topic = device, f"fm/1/f/up/{zlib.crc32(device.encode()) & 255}/{device}"
        self.heard: list[str] = []
        self.refusals: list[int] = []
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"f.{device}")
        client.max_queued_messages_set(0)
        client.username_pw_set(device, password)
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        self._topic = f"fm/1/f/dn/{device}"
        client.connect("127.0.0.1", broker.port)
        client.loop_start()

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(self._topic, qos=1)

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        body = codec.decode(bytes(message.payload))
        if isinstance(body, Refusal):
            self.refusals.append(body.Reason())
        self.heard.append(type(body).__name__ if body else "")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, message: bytes, topic: str = "") -> None:
        self._client.publish(topic or self.topic, message, qos=1)

    def hello(self, layout: Layout) -> bytes:
        return codec.encode(
            "Hello", device_id=self.device, elements=layout.elements, layout_crc32=layout.crc32, examples=10
        )

    def begin(self, data: bytes, **lies: int | float) -> bytes:
        fields: dict[str, int | float] = {
            "round": 1, "base_version": 1, "crc32": zlib.crc32(data), "elements": ELEMENTS, "chunk_elements": CHUNK,
            "examples": 1000, "steps": 1, "planned_steps": 1,
        }  # fmt: skip
        return codec.encode("UpdateBegin", **(fields | lies))

    def chunks(self, data: bytes) -> list[bytes]:
        size = 4 * CHUNK
        return [
            codec.encode("UpdateChunk", round=1, index=i, data=data[at : at + size])
            for i, at in enumerate(range(0, len(data), size))
        ]


def nonsense(rng: np.random.Generator, hello: bytes, begin: bytes) -> list[bytes]:
    """Noise, what is cut short or damaged, and valid messages of every kind with random fields."""
    out = [rng.bytes(int(rng.integers(0, 300))) for _ in range(100)]
    for message in (hello, begin):
        out += [message[:size] for size in range(0, len(message), 4)]
        for at in rng.integers(0, len(message), 50):
            out.append(message[:at] + bytes([message[at] ^ 1 << int(rng.integers(8))]) + message[at + 1 :])
    number = [0, 1, 2, 2**31, 2**32 - 1]
    for _ in range(100):
        first, second, third = (int(n) for n in rng.choice(number, 3))
        out += [
            codec.encode("UpdateChunk", round=first, index=second, data=rng.bytes(int(rng.integers(0, 200)))),
            codec.encode("UpdateEnd", round=first, chunks=second, crc32=third),
            codec.encode("ChunkRequest", version=first, index=second),
            codec.encode("Progress", round=first, steps=second, examples=third, loss=math.nan),
            codec.encode("DeviceState", flags=int(rng.integers(4)), battery=int(rng.integers(256))),
            codec.encode("Commit", round=first, model_version=second),
            codec.encode("Plan", round=first, model_elements=second),
            codec.encode("UpdateBegin", round=first, base_version=second, elements=third, chunk_elements=third),
        ]
    return [out[i] for i in rng.permutation(len(out))]


def unanswered(port: int) -> int:
    """Count the connections to the port that wait for an answer."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == SYN_SENT for row in rows)


def swallow(port: int, stack: ExitStack) -> None:
    """Listen with a full queue: further connections get no answer."""
    host = stack.enter_context(socket.socket())
    host.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    host.bind(("127.0.0.1", port))
    host.listen(0)
    while True:
        guest = stack.enter_context(socket.socket())
        guest.setblocking(False)
        guest.connect_ex(("127.0.0.1", port))
        if not select.select([], [guest], [], 0.2)[1]:
            guest.close()
            return


def test_the_server_works_while_its_broker_does_not_answer(tmp_path: Path, make_broker: MakeBroker) -> None:
    """An unanswered connection to the broker stops neither deadlines nor other links."""
    broker = make_broker()
    link = MqttLink(broker.url, "f", lambda *_: None)

    async def scenario() -> None:
        await link.start()
        broker.stop()
        with ExitStack() as silent:
            swallow(broker.port, silent)
            await until(lambda: unanswered(broker.port))  # seen from the loop: it runs meanwhile
        broker.start()
        await until(link.connected.is_set)
        await link.stop()

    asyncio.run(scenario())


def say_nonsense(device: Hostile, layout: Layout) -> None:
    for message in nonsense(np.random.default_rng(1), device.hello(layout), device.begin(b"")):
        device.say(message)


def say_lies(device: Hostile) -> None:
    """Send offers that no honest device can make."""
    for lies in (
        {"elements": 2**32 - 1}, {"elements": 0}, {"chunk_elements": 1, "elements": 2**32 - 1},
        {"examples": 2**32 - 1}, {"loss": math.nan},
    ):  # fmt: skip
        device.say(device.begin(b"", **lies))


def say_nan(device: Hostile) -> None:
    """Send a whole update with one element that is NaN."""
    spoilt = np.ones(ELEMENTS, "<f4")
    spoilt[ELEMENTS // 2] = np.nan
    data = spoilt.tobytes()
    end = codec.encode("UpdateEnd", round=1, chunks=CHUNKS, crc32=zlib.crc32(data))
    for message in [device.begin(data), *device.chunks(data), end]:
        device.say(message)


def test_hostile_devices(tmp_path: Path, make_broker: MakeBroker) -> None:
    """With four hostile devices of seven, a round loses nothing except their own updates."""
    honest, hostile = ["d0", "d1", "d2"], ["noise", "huge", "nan", "endless"]
    foreign = [f"fm/1/f/up/{zlib.crc32(b'd0') & 255}/d0", "fm/1/f/dn/d0", "fm/1/f/all", "fm/1/f/model/1/0"]
    outside = [f"thief{i}" for i in range(len(foreign))]
    broker = make_broker(users={"server": "s"} | dict.fromkeys(honest + hostile + outside, "x"))
    url = broker.url.replace("//", "//server:s@")
    slots = 4  # one upload is held until the end
    plan = federation(url, tmp_path, 7, goal=0.4, partial=False)
    records: list[Record] = []
    server = Server(
        dataclasses.replace(plan, limits=Limits(slots=slots, slot_silence_s=LONG_S, retry_ms=50)),
        on_round=records.append,
    )
    layout = plan.layout
    held: list[int] = []

    with ExitStack() as stack:
        bad = {name: Hostile(broker, name, "x") for name in hostile}
        thieves = [Hostile(broker, name, "x") for name in outside]
        for each in [*bad.values(), *thieves]:
            stack.callback(each.close)
        devices = Devices(broker.url, 3, password="x")

        async def attack() -> None:
            fleet = server.fleet
            changed = fleet.changed

            def count() -> None:
                held.append(len(fleet.uploads.slots.by_device))
                changed()

            fleet.changed = count
            for each in bad.values():
                each.say(each.hello(layout))
            await until(lambda: len(fleet.sessions.ready()) == 4)
            # The name of another device, and messages only the server may send: the broker forwards none of them.
            for thief, topic in zip(thieves, foreign, strict=True):
                thief.say(codec.encode("Commit", round=1, model_version=2), topic)
            stack.enter_context(devices)
            await until(lambda: len(planned_by(server)) == 7)
            endless = np.ones(ELEMENTS, "<f4").tobytes()
            bad["endless"].say(bad["endless"].begin(endless))
            await until(lambda: "endless" in fleet.uploads.slots.by_device)
            for message in bad["endless"].chunks(endless)[:-1] * 5:
                bad["endless"].say(message)
            say_nonsense(bad["noise"], layout)
            say_lies(bad["huge"])
            await until(lambda: set(honest) <= server.rounds.receipts.keys())
            say_nan(bad["nan"])
            await until(lambda: RefusalReason.NonFinite in bad["nan"].refusals)
            await until(lambda: RefusalReason.Malformed in bad["huge"].refusals)
            await until(lambda: fleet.counters["malformed"] >= 100)
            assert server.rounds.receipts.keys() == set(honest) and records == []
            assert "endless" in fleet.uploads.slots.by_device
            for name in ("endless", "noise"):  # in place of the hard deadline
                bad[name].say(codec.encode("Withdraw", round=1))

        asyncio.run(serve(server, 1, attack))
        assert [(r.selected, r.reported, r.partial) for r in records] == [(7, 3, 0)]
        assert np.array_equal(server.model, mean(devices.trainers, 1))
        assert devices.fits == [[1]] * 3
        assert 1 <= max(held) <= slots
        assert devices.sum("malformed") == devices.sum("unexpected") == 0
