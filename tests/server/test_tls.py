# SPDX-License-Identifier: Apache-2.0
"""The server on a TLS-only port of a real mosquitto: which certificates it accepts, and which it refuses."""

from __future__ import annotations

import asyncio
import ssl
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from certificates import Authority, Certificate
from paho.mqtt.enums import CallbackAPIVersion
from real_broker import WAIT_S, Broker, Devices, federation, mean, serve, until

from fedmote.links.mqtt import MqttLink
from fedmote.server.federation import Federation
from fedmote.server.server import Server


def over_tls(broker: Broker, folder: Path, authority: Authority, count: int) -> Federation:
    return replace(federation(broker.tls_url, folder, count), ca_file=authority.file)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_rounds_over_tls(tmp_path: Path, authority: Authority) -> None:
    """With the server on TLS and devices on the plain port, rounds work as usual."""
    broker = Broker(tmp_path, tls=authority.issue("localhost"))
    broker.start()
    try:
        server = Server(over_tls(broker, tmp_path, authority, 8))
        with Devices(broker.url, 8) as devices:
            asyncio.run(serve(server, 3))
        assert server.model.tobytes() == mean(devices.trainers, 3).tobytes()
        assert devices.fits == [[1, 2, 3]] * 8
    finally:
        broker.stop()


def test_the_connection_heals(tmp_path: Path, authority: Authority) -> None:
    """After a broker restart the server reconnects over TLS."""
    broker = Broker(tmp_path, persistent=True, tls=authority.issue("localhost"))
    broker.start()

    async def restart() -> None:
        broker.stop()
        broker.start()

    try:
        server = Server(over_tls(broker, tmp_path, authority, 1))
        with Devices(broker.url, 1) as devices:
            asyncio.run(serve(server, 2, restart))
        assert server.model.tobytes() == mean(devices.trainers, 2).tobytes()
    finally:
        broker.stop()


class Relay:
    """TLS in front of a broker's plain port, for one connection. What the broker says goes on in records of `least`
    bytes or more."""

    def __init__(self, broker_port: int, shown: Certificate) -> None:
        self.least, self.passed = 1, 0
        self._broker_port = broker_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(shown.certificate, shown.key)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    def close(self) -> None:
        """Close, once the server has closed the connection."""
        self._thread.join()

    async def _run(self) -> None:
        done = asyncio.Event()

        async def pass_on(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
            down = asyncio.create_task(self._gather(broker, to_client))
            while data := await client.read(65536):
                to_broker.write(data)
            down.cancel()
            to_broker.close()
            to_client.close()
            await to_broker.wait_closed()
            done.set()

        async with await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=self._context) as listener:
            self.port = int(listener.sockets[0].getsockname()[1])
            self._ready.set()
            await done.wait()

    async def _gather(self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        held = b""
        while data := await broker.read(65536):
            held += data
            if len(held) >= self.least:
                to_client.write(held)
                self.passed += len(held)
                held = b""


def test_several_messages_in_one_record(tmp_path: Path, authority: Authority) -> None:
    """Several packets may share a TLS record. TLS then holds data that no descriptor shows as readable."""
    broker = Broker(tmp_path)
    broker.start()
    relay = Relay(broker.port, authority.issue("localhost"))
    topic, payloads = f"fm/1/f/up/{zlib.crc32(b'd0') & 255}/d0", [b"1" * 20, b"2" * 20, b"3" * 20]
    heard: list[bytes] = []

    async def run() -> None:
        link = MqttLink(
            f"mqtts://localhost:{relay.port}", "f", lambda _, payload, *__: heard.append(payload), authority.file
        )
        await link.start()
        await until(lambda: relay.passed == 4 + 5 + 5 + 4)  # CONNACK, two SUBACKs, UNSUBACK
        relay.least = sum(4 + len(topic) + len(payload) for payload in payloads)
        device = mqtt.Client(CallbackAPIVersion.VERSION2)
        device.connect("127.0.0.1", broker.port)
        for payload in payloads:
            device.publish(topic, payload)
        device.loop_start()
        try:
            await until(lambda: len(heard) == len(payloads))
        finally:
            device.disconnect()
            device.loop_stop()
            await link.stop()

    try:
        asyncio.run(run())
    finally:
        relay.close()
        broker.stop()
    assert heard == payloads


def refused(tmp_path: Path, shown: Certificate, trusted: Authority) -> str:
    """Start a server that must not connect; return its output."""
    broker = Broker(tmp_path, tls=shown)
    broker.start()
    try:
        with pytest.raises(ConnectionError) as caught:
            asyncio.run(Server(over_tls(broker, tmp_path, trusted, 1)).run(1))
        asyncio.run(until(lambda: broker.connections))
    finally:
        broker.stop()
    assert "New client connected" not in broker.log
    return str(caught.value)


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path / "other")
    said = refused(tmp_path, other.issue("localhost"), authority)
    assert "no TLS with the MQTT broker at localhost" in said and "unable to get local issuer certificate" in said


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, authority: Authority) -> None:
    said = refused(tmp_path, authority.issue("elsewhere.example"), authority)
    assert "Hostname mismatch" in said and "must be for localhost" in said


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    assert "certificate has expired" in refused(tmp_path, authority.issue("localhost", days=-1), authority)


def test_without_a_file_the_systems_authorities_count(tmp_path: Path, authority: Authority) -> None:
    """Without a CA file the system's authorities count. None of them signed this certificate."""
    broker = Broker(tmp_path, tls=authority.issue("localhost"))
    broker.start()
    try:
        with pytest.raises(ConnectionError, match="no TLS"):
            asyncio.run(Server(federation(broker.tls_url, tmp_path, 1)).run(1))
    finally:
        broker.stop()


def test_a_file_without_tls_is_a_mistake(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(ValueError, match="a CA file is for mqtts"):
        asyncio.run(Server(replace(federation("mqtt://localhost", tmp_path, 1), ca_file=authority.file)).run(1))
