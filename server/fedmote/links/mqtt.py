# SPDX-License-Identifier: Apache-2.0
"""The MQTT link, on the event loop's thread (docs/wire.md has the topics)."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fedmote.links.link import Lost, Receive
from fedmote.links.subscriptions import Subscriptions
from fedmote.links.url import BrokerUrl

log = logging.getLogger(__name__)

RETRY_S = 1.0
FLUSH_CHECKS = 500  # of 10 ms
ANSWER_S = 10.0
KEEP_ALIVE_S = 30
CONNECT_S = 5.0


class _TlsSocket(ssl.SSLSocket):
    """A TLS socket that closes when the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class _Client(mqtt.Client):
    """Paho's client. It can use a socket that is connected already, since paho's own connect blocks the event loop."""

    connected_socket: socket.socket | None = None

    def _create_socket_connection(self) -> socket.socket:
        ready, self.connected_socket = self.connected_socket, None
        return ready or super()._create_socket_connection()


def _make_client(broker: BrokerUrl, federation: str, ca_file: Path | None) -> _Client:
    """Make the client of a broker. ValueError: a setting is wrong."""
    if ca_file is not None and broker.scheme != "mqtts":
        raise ValueError(f"broker {broker}: a CA file is for mqtts://")
    client = _Client(CallbackAPIVersion.VERSION2, client_id=f"fedmote-server-{federation}", clean_session=False)
    if broker.user:
        client.username_pw_set(broker.user, broker.password)
    if broker.scheme == "mqtts":
        context = ssl.create_default_context(cafile=ca_file)
        context.sslsocket_class = _TlsSocket
        client.tls_set_context(context)
    client.max_inflight_messages_set(65535)
    client.suppress_exceptions = True  # paho logs them; one that escaped would make it read the packet forever
    client.enable_logger(log)
    return client


async def _connect(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that answers. OSError: none does."""
    loop = asyncio.get_running_loop()
    last: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(CONNECT_S):  # wait_for() of Python 3.11 loses a cancellation when both are due
                await loop.sock_connect(sock, address)
            return sock
        except OSError as error:  # a timeout is one
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
    raise last


async def _until(done: Callable[[], bool], checks: int) -> None:
    """Wait until `done` returns True, for at most `checks` checks, 10 ms apart."""
    for _ in range(checks):
        if done():
            return
        await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """A broker.

    url: mqtt://[user:password@]host[:port], mqtts:// for TLS. ca_file: PEM file of the authority that signed the
    broker's certificate, which must be for `host`; None: the authorities that the system trusts.
    """

    url: str
    ca_file: Path | None = None

    @property
    def addresses(self) -> list[str]:
        """The URL without user and password."""
        return [str(BrokerUrl.parse(self.url))]

    def make_link(self, federation: str, receive: Receive, lost: Lost) -> MqttLink:
        """Make the link. `lost` is not used: a lost device's last will says so. ValueError: a setting is wrong."""
        return MqttLink(self.url, federation, receive, self.ca_file)


class MqttLink:
    """One connection to a broker; see MqttSettings.

    The link takes a device's id from the topic, so the broker's access rules must let each device publish only to its
    own.
    """

    def __init__(self, url: str, federation: str, receive: Receive, ca_file: Path | None = None) -> None:
        broker = BrokerUrl.parse(url)
        self.host, self.port = broker.host, broker.port
        self.prefix = f"fm/1/{federation}/"
        self.receive = receive
        self.connected = asyncio.Event()
        self.bytes_in = self.bytes_out = 0
        self._models: dict[int, list[bytes]] = {}  # retained chunks by version
        self._closing = False
        self._last: mqtt.MQTTMessageInfo | None = None
        self._refused = ""  # the broker's reason, if it refused the first connection
        self._early: list[tuple[str, bytes]] | None = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = client = _make_client(broker, federation, ca_file)
        self._subscriptions = Subscriptions(client, self.prefix, lambda v, i: i < len(self._models.get(v, ())))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_want_write
        client.on_socket_unregister_write = self._on_written

    async def start(self) -> None:
        """Connect. ConnectionError: there is no broker, or it refuses. Later the link reconnects by itself.

        The broker sends at once what it queued since the last connection. The link delivers that only after the caller
        has returned to its event loop.
        """
        self._loop = asyncio.get_running_loop()
        self._answered = asyncio.Event()
        try:
            self._client.connect(self.host, self.port, keepalive=KEEP_ALIVE_S)
        except ssl.SSLError as error:
            raise ConnectionError(
                f"no TLS with the MQTT broker at {self.host}:{self.port} ({error}); its certificate must be for "
                f"{self.host} and signed by an authority in the CA file"
            ) from error
        except OSError as error:
            raise ConnectionError(
                f"no MQTT broker at {self.host}:{self.port} ({error}); start one or name another"
            ) from error
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._answered.wait()
        except TimeoutError:
            self._refused = f"no answer within {ANSWER_S:g} s"
        if not self.connected.is_set():
            self._closing = True
            self._client.disconnect()
            raise ConnectionError(
                f"the MQTT broker at {self.host}:{self.port} did not let the server in ({self._refused}); check user, "
                "password and the broker's log"
            )
        self._spawn(self._keep())
        self._loop.call_soon(self._deliver_early)

    async def stop(self) -> None:
        """Remove the retained model from the broker, then disconnect."""
        self._closing = True
        for version in list(self._models):
            self.publish_model(version, [])
        try:
            # Messages that the broker has not acknowledged, a receipt or a commit, could be lost with the socket.
            await _until(self._is_flushed, FLUSH_CHECKS)
            self._client.disconnect()
            await _until(lambda: self._client.socket() is None or not self._client.want_write(), 100)
        finally:
            for task in self._tasks:
                task.cancel()

    def _is_flushed(self) -> bool:
        return not self.connected.is_set() or self._last is None or self._last.is_published()

    def send(self, device: str, message: bytes) -> None:
        """Send to one device at QoS 1."""
        self.bytes_out += len(message)
        self._last = self._client.publish(f"{self.prefix}dn/{device}", message, qos=1)

    def broadcast(self, message: bytes) -> None:
        """Send to all devices at QoS 1."""
        self.bytes_out += len(message)
        self._last = self._client.publish(f"{self.prefix}all", message, qos=1)

    def publish_model(self, version: int, chunks: list[bytes]) -> None:
        """Retain a model's chunks on the broker; an empty list removes them."""
        old = self._models.pop(version, [])
        if chunks:
            self._models[version] = chunks
        for index, chunk in enumerate(chunks or [b""] * len(old)):
            self.bytes_out += len(chunk)
            self._last = self._client.publish(f"{self.prefix}model/{version}/{index}", chunk, qos=1, retain=True)

    # ---- paho's callbacks

    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.error("the broker at %s:%d refused the connection: %s", self.host, self.port, reason)
            self._refused = str(reason)
            self._answered.set()
            return
        self._subscriptions.subscribe(client)
        for version, chunks in self._models.items():
            for index, chunk in enumerate(chunks):  # a broker without persistence has lost them
                client.publish(f"{self.prefix}model/{version}/{index}", chunk, qos=1, retain=True)
        self.connected.set()
        self._answered.set()

    def _on_disconnect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.connected.clear()
        self._refused = self._refused or f"connection lost: {reason}"
        self._answered.set()
        if not self._closing:
            log.warning("lost the broker at %s:%d (%s); trying again", self.host, self.port, reason)

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        try:
            parts = message.topic.split("/")
        except UnicodeDecodeError:
            return  # not the topic of a device
        if not message.retain and len(parts) == 6 and parts[4] == str(zlib.crc32(parts[5].encode()) & 255):
            self.bytes_in += len(message.payload)
            if self._early is None:
                self._hand_over(parts[5], bytes(message.payload))
            else:
                self._early.append((parts[5], bytes(message.payload)))

    def _hand_over(self, device: str, payload: bytes) -> None:
        self.receive(device, payload, time.monotonic(), self.send)

    def _deliver_early(self) -> None:
        early, self._early = self._early or [], None
        for device, payload in early:
            self._hand_over(device, payload)

    def _on_socket_open(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle's algorithm would delay each answer by 40 ms
        self._loop.add_reader(sock, self._read, sock)

    def _read(self, sock: Any) -> None:
        self._client.loop_read()
        # Bytes that TLS has already decrypted do not make the descriptor readable.
        while self._client.socket() is sock and isinstance(sock, ssl.SSLSocket) and sock.pending():
            self._client.loop_read()

    def _on_socket_close(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _on_want_write(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._loop.add_writer(sock, client.loop_write)

    def _on_written(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _spawn(self, task: Any) -> None:
        running = self._loop.create_task(task)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        """Send keep-alives, and reconnect after a lost connection."""
        while True:
            await asyncio.sleep(RETRY_S)
            if self._client.loop_misc() != mqtt.MQTT_ERR_SUCCESS and not self._closing:
                try:
                    await self._reconnect()
                except OSError as error:
                    reason = str(error) or f"no answer within {CONNECT_S:g} s"
                    log.warning("no broker at %s:%d (%s)", self.host, self.port, reason)
                except Exception:  # whatever failed, try again: without an attempt the link would stay down
                    log.exception("connecting to the broker at %s:%d failed; trying again", self.host, self.port)

    async def _reconnect(self) -> None:
        sock = await _connect(self.host, self.port)
        if self._closing:
            sock.close()
        else:
            self._client.connected_socket = sock
            self._client.reconnect()
