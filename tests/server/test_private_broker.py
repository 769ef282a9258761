# SPDX-License-Identifier: Apache-2.0
"""The broker that `fedmote server` starts by itself, and what a killed server leaves at any broker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from real_broker import Broker, Devices, federation

from fedmote import Server, private_broker
from fedmote.links.broker import LARGEST_MESSAGE, PrivateUrl
from fedmote.links.subscriptions import Subscriptions
from fedmote.links.url import BrokerUrl


class Client:
    """A client of the broker: by default an anonymous one, as devices are."""

    def __init__(self, url: str, *topics: str) -> None:
        broker = BrokerUrl.parse(url)
        self.heard: dict[str, bytes] = {}
        self._heard, self._ready = threading.Condition(), threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if broker.user:
            self._client.username_pw_set(broker.user, broker.password)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe([(topic, 1) for topic in topics or ("nothing",)])
        assert self._ready.wait(10)

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        with self._heard:
            self.heard[message.topic] = bytes(message.payload)
            self._heard.notify_all()

    def say(self, topic: str, message: bytes, retain: bool = False) -> None:
        self._client.publish(topic, message, qos=1, retain=retain).wait_for_publish(10)

    def tries(self, topic: str, message: bytes) -> None:
        """Publish something that the broker drops; some versions end the connection, too."""
        with contextlib.suppress(RuntimeError):
            self.say(topic, message, retain=True)

    def hears(self, topic: str) -> bytes:
        with self._heard:
            assert self._heard.wait_for(lambda: topic in self.heard, 10), self.heard.keys()
            return self.heard[topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def protected() -> Iterator[PrivateUrl]:
    with private_broker(protected=True) as url:
        yield url


def test_only_the_server_speaks_to_devices(protected: PrivateUrl) -> None:
    """A forged message to all devices, to one device, or a forged model does not arrive; the server's does."""
    device = Client(protected, "fm/1/f/all", "fm/1/f/dn/d1", "fm/1/f/model/1/0")
    server = Client(protected.server_url, "fm/1/f/up/+/+")
    for topic in ("fm/1/f/all", "fm/1/f/dn/d1", "fm/1/f/model/1/0"):
        thief = Client(protected)
        thief.tries(topic, b"forged")
        thief.close()
        server.say(topic, b"true")
        assert device.hears(topic) == b"true"
    device.say("fm/1/f/up/7/d1", b"hello")
    assert server.hears("fm/1/f/up/7/d1") == b"hello"
    device.close()
    server.close()


def test_a_huge_message_is_not_passed_on(protected: PrivateUrl) -> None:
    device, thief = Client(protected), Client(protected)
    server = Client(protected.server_url, "fm/1/f/up/+/+")
    thief.tries("fm/1/f/up/7/huge", bytes(LARGEST_MESSAGE + 1))
    thief.close()
    device.say("fm/1/f/up/7/d1", bytes(LARGEST_MESSAGE // 2))
    server.hears("fm/1/f/up/7/d1")
    assert "fm/1/f/up/7/huge" not in server.heard
    device.close()
    server.close()


def test_chunks_of_a_killed_server_are_removed(tmp_path: Path, broker: Broker) -> None:
    """Retained chunks of a model that no server owns any longer are gone after the next start; its own are served."""
    broker.start()
    left = Client(broker.url)
    for topic in ("fm/1/f/model/77/0", "fm/1/f/model/77/1", "fm/1/f/model/1/999", "fm/1/other/model/77/0"):
        left.say(topic, b"left", retain=True)
    server = Server(federation(broker.url, tmp_path, 2))
    with Devices(broker.url, 2):
        asyncio.run(asyncio.wait_for(server.run(1), 60))
    found = Client(broker.url, "fm/1/+/model/+/+")
    found.hears("fm/1/other/model/77/0")
    left.say("fm/1/end/model/1/0", b"end")
    found.hears("fm/1/end/model/1/0")
    assert sorted(found.heard) == ["fm/1/end/model/1/0", "fm/1/other/model/77/0"]
    for client in (left, found):
        client.close()


def test_a_refused_subscription_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that does not let the server read what devices publish answers so; mosquitto's access list does not."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    subscriptions = Subscriptions(client, "fm/1/f/", lambda version, index: False)
    for identifier in (0x01, 0x80):
        assert caplog.text == ""
        subscriptions._filters[7] = "fm/1/f/up/+/+"
        reason = ReasonCode(PacketTypes.SUBACK, identifier=identifier)
        subscriptions._on_subscribe(client, None, 7, [reason], None)
    assert "the broker refuses the subscription to fm/1/f/up/+/+: no device is heard" in caplog.text
