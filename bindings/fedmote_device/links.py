# SPDX-License-Identifier: Apache-2.0
"""The device library's links without I/O: the same C code, fed with bytes and a clock by the caller."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedmote_device._fedmote import ffi, lib
from fedmote_device.counters import read_counters

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData

_OK: Final[int] = lib.FM_OK
_AGAIN: Final[int] = lib.FM_AGAIN
_PREFIX: Final = 4
LARGEST_MESSAGE: Final = 128 * 1024
"""Bytes of the largest message that a link here receives. Larger ones are dropped and counted."""
_SLACK: Final = 8 * 1024  # messages that one bounded poll may complete besides the largest
_OUT: Final = 64 * 1024
_PEER_BYTES = ffi.typeof("uint8_t[]")


class _SansIoLink:
    """Bytes in, messages out, and the other way round. The stream below is up from open() to break_stream()."""

    def __init__(self, sansio: CData) -> None:
        self._sansio = sansio
        self._inbox = ffi.new("uint8_t[]", LARGEST_MESSAGE + _SLACK)
        self._out = ffi.new("uint8_t[]", _OUT)
        sansio.inbox.bytes, sansio.inbox.size = self._inbox, len(self._inbox)
        sansio.pipe.out, sansio.pipe.out_size = self._out, _OUT
        self._rest = b""
        self._queue: deque[tuple[CData, bool]] = deque()
        self._sending: CData | None = None
        self.wait_ms = 0

    @property
    def connection(self) -> int:
        """A number that is new for each connection; 0 while there is none."""
        return int(lib.fmb_sansio_connection(self._sansio))

    @property
    def unsent(self) -> int:
        """Number of messages of send() that are not sent yet."""
        return len(self._queue) + (self._sending is not None)

    @property
    def oversized(self) -> int:
        """Number of messages that were dropped because they are over LARGEST_MESSAGE."""
        return int(self._sansio.inbox.oversized)

    def open(self) -> None:
        """Let the link's stream open, as if the peer answered."""
        self._sansio.pipe.connected = True

    def break_stream(self) -> None:
        """Break the stream. Bytes under way in either direction are lost."""
        pipe = self._sansio.pipe
        pipe.connected = pipe.open = False
        pipe.out_fill = 0
        self._rest = b""

    def send(self, message: bytes, reliable: bool = True) -> None:
        """Queue a message. An unreliable one under way is lost when the connection breaks."""
        self._queue.append((ffi.from_buffer(_PEER_BYTES, message), reliable))

    def forget(self) -> None:
        """Drop the messages that the link has not begun to send."""
        self._queue.clear()

    def feed(self, data: bytes, now_ms: int) -> list[bytes]:
        """Give the link bytes from the peer, and the time. Return the messages that are complete.

        It may have bytes for the peer afterwards: see take().
        """
        pending = self._rest + data
        view = ffi.from_buffer(_PEER_BYTES, pending)
        messages: list[bytes] = []
        at = 0
        while True:
            self._pump()
            used = lib.fmb_sansio_poll(self._sansio, view + at, len(pending) - at, now_ms & 0xFFFFFFFF)
            at += used
            handed = self._pump()
            got = self._messages()
            messages += got
            if not got and not handed and (used == 0 or at == len(pending)):
                break
        # A closed stream loses bytes; an open one that cannot go on (nobody takes its output) keeps them.
        self._rest = pending[at:] if self._sansio.pipe.open else b""
        self.wait_ms = int(self._sansio.wait_ms)
        return messages

    def poll(self, now_ms: int) -> list[bytes]:
        """Give the link the time, without new bytes. `wait_ms` then tells how long it may rest."""
        return self.feed(b"", now_ms)

    def take(self) -> bytes:
        """Take the bytes that go to the peer."""
        pipe = self._sansio.pipe
        data = bytes(ffi.buffer(self._out, pipe.out_fill))
        pipe.out_fill = 0
        return data

    def _pump(self) -> bool:
        """Hand the link the next messages of the queue, as far as it takes them. Return whether it took one."""
        handed = False
        while True:
            if self._sending is not None and not lib.fmb_sansio_sending(self._sansio):
                self._sending = None
            if self._sending is not None or not self._queue:
                return handed
            view, reliable = self._queue[0]
            status = lib.fmb_sansio_send(self._sansio, view, len(view), reliable)
            if status == _AGAIN:
                return handed
            handed = True
            self._queue.popleft()
            if status != _OK:
                raise ValueError(f"a message of {len(view)} bytes is too large for this link")
            self._sending = view

    def _messages(self) -> list[bytes]:
        inbox = self._sansio.inbox
        if inbox.messages == 0:
            return []
        raw = bytes(ffi.buffer(self._inbox, inbox.fill))
        lib.fmb_sansio_clear(self._sansio)
        messages, at = [], 0
        while at < len(raw):
            size = int(ffi.cast("uint32_t *", ffi.from_buffer(raw[at : at + _PREFIX]))[0])
            messages.append(raw[at + _PREFIX : at + _PREFIX + size])
            at += _PREFIX + size
        return messages


@dataclass(frozen=True)
class MqttSettings:
    """Settings of an MqttLink. backoff_ms: first and longest wait before it connects again. will: a message."""

    username: str | None = None
    password: str | None = None
    will: bytes | None = None
    keep_alive_s: int = 30
    seed: int = 1
    backoff_ms: tuple[int, int] = (500, 60_000)
    buffer_size: int = 512


class MqttLink(_SansIoLink):
    """The device's side of MQTT 3.1.1: bytes to and from a broker.

    Raise ValueError for settings that the C library refuses.
    """

    def __init__(self, federation: str, device_id: str, settings: MqttSettings | None = None) -> None:
        self._c = ffi.new("fmb_mqtt_link_t *")
        super().__init__(ffi.addressof(self._c.sansio))
        self._memory: list[CData] = []
        self._write_config(federation, device_id, settings or MqttSettings())
        status = lib.fmb_mqtt_init(self._c)
        if status != _OK:
            raise ValueError(f"device {device_id!r}: the library refuses these settings (status {status})")

    def _write_config(self, federation: str, device_id: str, settings: MqttSettings) -> None:
        config = self._c.config
        config.federation = self._text(federation)
        config.device_id = self._text(device_id)
        config.username = self._text(settings.username)
        config.password = self._text(settings.password)
        if settings.will is not None:
            config.will, config.will_size = self._new("uint8_t[]", settings.will), len(settings.will)
        config.keep_alive_s = settings.keep_alive_s
        config.seed = settings.seed & 0xFFFFFFFF
        config.backoff_min_ms, config.backoff_max_ms = settings.backoff_ms
        config.buffer, config.buffer_size = self._new("uint8_t[]", settings.buffer_size), settings.buffer_size

    def _text(self, value: str | None) -> CData:
        """Return a C string, NULL for None."""
        none: CData = ffi.NULL
        return none if value is None else self._new("char[]", value.encode())

    def _new(self, kind: str, value: bytes | int) -> CData:
        """Return C memory that lives as long as the link."""
        memory: CData = ffi.new(kind, value)
        self._memory.append(memory)
        return memory

    def fetch(self, version: int, index: int) -> bool:
        """Ask for a retained model chunk, which arrives as a message. Return False if the link cannot ask now."""
        return bool(lib.fmb_sansio_fetch(self._sansio, version, index) == _OK)

    def close(self) -> None:
        """Send DISCONNECT and close. The next poll connects again."""
        lib.fm_mqtt_close(ffi.addressof(self._c.mqtt))

    @property
    def counters(self) -> dict[str, int]:
        """The link's counters (fm_mqtt_counters_t)."""
        return read_counters(self._c.mqtt.counters)


class SerialLink(_SansIoLink):
    """Either end of a serial line.

    seed: of the connection tags; must differ between the two ends. retransmit_ms: first guess of the time to an
    acknowledgement, 0 for 500. keep_alive_ms: time without a frame after which a probe is sent, 0 for 5000.

    Raise ValueError for settings that the C library refuses.
    """

    def __init__(self, *, seed: int = 1, retransmit_ms: int = 0, keep_alive_ms: int = 0) -> None:
        self._c = ffi.new("fmb_serial_link_t *")
        super().__init__(ffi.addressof(self._c.sansio))
        config = self._c.config
        config.seed, config.retransmit_ms, config.keep_alive_ms = seed & 0xFFFFFFFF, retransmit_ms, keep_alive_ms
        status = lib.fmb_serial_init(self._c)
        if status != _OK:
            raise ValueError(f"the library refuses these settings (status {status})")

    def close(self) -> None:
        """Tell the peer and close. The next poll connects again."""
        lib.fm_serial_close(ffi.addressof(self._c.serial))

    @property
    def counters(self) -> dict[str, int]:
        """The link's counters (fm_serial_counters_t)."""
        return read_counters(self._c.serial.counters)
