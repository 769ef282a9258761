# SPDX-License-Identifier: Apache-2.0
"""The MQTT link without I/O: its bytes against a real mosquitto, and its behaviour when there is none."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from fedmote.links.broker import private_broker
from fedmote_device.links import LARGEST_MESSAGE, MqttLink, MqttSettings

WAIT_S = 120.0  # for what takes a fraction of a second, unless others keep the machine busy


def wait_for(what: Callable[[], object]) -> None:
    """Check again and again until it is true."""
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"


@pytest.fixture
def port() -> Iterator[int]:
    """Return the port of a real broker on loopback."""
    with private_broker() as url:
        yield int(url.rpartition(":")[2])


class Wire:
    """Moves a link's bytes over a socket, a few at a time."""

    def __init__(self, link: MqttLink, port: int, piece: int = 4096) -> None:
        self.link = link
        self.piece = piece
        self.messages: list[bytes] = []
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(0.005)
        link.open()

    def step(self) -> None:
        data = b""
        with contextlib.suppress(TimeoutError):
            data = self.socket.recv(self.piece)
        self.messages += self.link.feed(data, time.monotonic_ns() // 1_000_000)
        out = self.link.take()
        if out:
            self.socket.sendall(out)

    def until(self, what: Callable[[], object]) -> None:
        def stepped() -> object:
            self.step()
            return what()

        wait_for(stepped)

    def cut(self) -> None:
        self.socket.close()
        self.link.break_stream()


def is_connected(link: MqttLink) -> bool:
    return link.connection != 0


Connect = Callable[..., Wire]
Paho = tuple[Any, list[tuple[str, bytes, int]]]


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """Return a function that makes wires to the broker; close their sockets at the end."""
    wires: list[Wire] = []

    def make(link: MqttLink, piece: int = 4096) -> Wire:
        wires.append(Wire(link, port, piece))
        return wires[-1]

    yield make
    for wire in wires:
        wire.socket.close()


@pytest.fixture
def paho(port: int) -> Iterator[Paho]:
    """The server's side, through another implementation of MQTT: it receives everything on up/."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    heard: list[tuple[str, bytes, int]] = []
    subscribed: list[int] = []
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _u, m: heard.append((m.topic, bytes(m.payload), m.qos))
    client.on_subscribe = lambda _c, _u, mid, _r, _p: subscribed.append(mid)
    client.connect("127.0.0.1", port)
    client.subscribe("fm/1/test/up/#", qos=1)
    client.loop_start()
    wait_for(lambda: subscribed)
    yield client, heard
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_messages_cross_a_real_broker(connect: Connect, paho: Paho, piece: int) -> None:
    client, heard = paho
    link = MqttLink("test", "dev-1", MqttSettings(buffer_size=128))
    wire = connect(link, piece)
    wire.until(lambda: link.connection != 0)
    sent = [bytes([i]) * (1 + 97 * i) for i in range(12)]
    for i, message in enumerate(sent):
        link.send(message, reliable=i % 2 == 0)
    wire.until(lambda: len(heard) == 12 and link.unsent == 0)
    assert [payload for _, payload, _ in heard] == sent
    assert {topic for topic, _, _ in heard} == {"fm/1/test/up/150/dev-1"}
    assert [qos for _, _, qos in heard] == [1, 0] * 6
    client.publish("fm/1/test/dn/dev-1", b"x" * 700, qos=1)
    client.publish("fm/1/test/all", b"y" * 5, qos=1)
    wire.until(lambda: len(wire.messages) == 2)
    assert sorted(wire.messages) == [b"x" * 700, b"y" * 5]


def test_retained_model_chunks_are_fetched(connect: Connect, paho: Paho) -> None:
    client, _ = paho
    for index in range(3):
        info = client.publish(f"fm/1/test/model/7/{index}", bytes([index]) * 3000, qos=1, retain=True)
        info.wait_for_publish(WAIT_S)
    link = MqttLink("test", "dev-1")
    wire = connect(link)
    wire.until(lambda: link.connection != 0)
    for index in (0, 2, 1):
        wire.until(partial(link.fetch, 7, index))
        wire.until(lambda: wire.messages)
        assert wire.messages.pop() == bytes([index]) * 3000


def test_a_reliable_message_survives_the_connection(connect: Connect, paho: Paho) -> None:
    _, heard = paho
    link = MqttLink("test", "dev-1", MqttSettings(backoff_ms=(1, 5)))
    wire = connect(link)
    wire.until(lambda: link.connection != 0)
    first = link.connection
    link.send(b"keep me")
    link.poll(time.monotonic_ns() // 1_000_000)
    wire.cut()  # before a byte of it left
    link.poll(time.monotonic_ns() // 1_000_000)
    assert link.connection == 0
    assert link.unsent == 1
    wire = connect(link)
    wire.until(lambda: link.unsent == 0)
    assert link.connection not in (0, first)
    wire.until(lambda: heard)
    assert heard == [("fm/1/test/up/150/dev-1", b"keep me", 1)]
    assert link.counters["resent"] == 1


def test_the_will_speaks_for_a_device_that_vanishes(connect: Connect, paho: Paho) -> None:
    _, heard = paho
    for vanish in (False, True):
        link = MqttLink("test", "dev-1", MqttSettings(will=b"gone", backoff_ms=(1, 5)))
        wire = connect(link)
        wire.until(partial(is_connected, link))
        if not vanish:
            link.close()
            wire.socket.sendall(link.take())
            link.send(b"after a proper good-bye")
            wire.cut()
            link.poll(0)
        else:
            wire.cut()
    wait_for(lambda: heard)
    assert [payload for _, payload, _ in heard] == [b"gone"]


def test_a_message_over_the_limit_is_dropped_and_counted(connect: Connect, paho: Paho) -> None:
    client, _ = paho
    link = MqttLink("test", "dev-1", MqttSettings(buffer_size=4096))
    wire = connect(link, 65536)
    wire.until(lambda: link.connection != 0)
    client.publish("fm/1/test/dn/dev-1", bytes(LARGEST_MESSAGE + 100_000), qos=1)
    client.publish("fm/1/test/dn/dev-1", bytes(LARGEST_MESSAGE), qos=1)
    wire.until(lambda: wire.messages)
    assert [len(message) for message in wire.messages] == [LARGEST_MESSAGE]
    assert link.oversized == 1


def test_without_a_peer_it_backs_off() -> None:
    link = MqttLink("test", "dev-1", MqttSettings(backoff_ms=(100, 800)))
    now, waits = 0, []
    for _ in range(8):
        assert link.poll(now) == []
        waits.append(link.wait_ms)
        now += link.wait_ms
    assert link.connection == 0
    assert link.take() == b""
    assert 50 <= waits[0] <= 100 and all(400 <= wait <= 800 for wait in waits[-2:])
    assert not link.fetch(1, 0)


@pytest.mark.parametrize(
    ("federation", "device", "options"),
    [
        ("", "d", {}),
        ("a" * 33, "d", {}),
        ("a/b", "d", {}),
        ("test", "", {}),
        ("test", "d+", {}),
        ("test", "x" * 64, {}),
        ("test", "d", {"keep_alive_s": 0}),
        ("test", "d", {"buffer_size": 63}),
    ],
)
def test_settings_that_mqtt_cannot_take_are_refused(federation: str, device: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="refuses"):
        MqttLink(federation, device, MqttSettings(**options))
