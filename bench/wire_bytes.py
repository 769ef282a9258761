# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire for one update, against its payload of 9,640 bytes (2,410 float32).

A proxy between the C client and mosquitto reads every MQTT packet on the socket, in both directions, and counts it
under the message that it carries or acknowledges. An update is UpdateBegin, its chunks and UpdateEnd, the server's
answers to them (UpdateStatus, Receipt), and all PUBACKs of these. A round also has the plan, the model's download
(SUBSCRIBE to UNSUBACK) and the commit. Counts include MQTT headers and topics, but no headers of TCP and IP. A topic
is, for example, fm/1/bench/up/<shard>/device-0.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from common import BENCH, WIDTHS, note, save, table
from federation import process, serve

from fedmote.faults.cable import Cable
from fedmote.links.broker import private_broker
from fedmote.model.layout import dense
from fedmote.rounds.record import Record
from fedmote.wire.codec import decode

ROUNDS = 4
UPDATE = ("UpdateBegin", "UpdateChunk", "UpdateEnd", "UpdateStatus", "Receipt")
PAYLOAD = 4 * dense(WIDTHS).elements
PUBLISH, PUBACK = 3, 4
TYPES = ("", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "", "", "", "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK",
         "PINGREQ", "PINGRESP", "DISCONNECT", "")  # fmt: skip

Book = Counter[tuple[str, str]]
"""Bytes by direction (`up` from the device, `down` to it) and message."""


class Reader:
    """Splits one direction's bytes into MQTT 3.1.1 packets and counts them."""

    def __init__(self, direction: str, book: Book, sent: dict[int, str], acknowledged: dict[int, str]) -> None:
        self.direction, self.book = direction, book
        self.sent = sent  # packet ids of this direction's publishes -> message
        self.acknowledged = acknowledged  # those of the other direction, which PUBACKs here belong to
        self.bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self.bytes += data
        while (size := self.packet_size()) is not None and len(self.bytes) >= size:
            self.packet(bytes(self.bytes[:size]))
            del self.bytes[:size]

    def packet_size(self) -> int | None:
        """Return the size of the first packet; None while it is not known."""
        size = 0
        for i, byte in enumerate(self.bytes[1:5]):
            size |= (byte & 127) << (7 * i)
            if byte < 128:
                return 2 + i + size
        return None

    def packet(self, packet: bytes) -> None:
        """Count one packet."""
        kind = packet[0] >> 4
        head = 1 + next(i for i, byte in enumerate(packet[1:], 1) if byte < 128)
        name = TYPES[kind]
        if kind == PUBLISH:
            at = head + 2 + int.from_bytes(packet[head : head + 2], "big")
            quality = packet[0] >> 1 & 3
            decoded = decode(packet[at + (2 if quality else 0) :])
            name = type(decoded).__name__ if decoded else "not a message"
            if quality:
                self.sent[int.from_bytes(packet[at : at + 2], "big")] = name
        elif kind == PUBACK:
            name = self.acknowledged.get(int.from_bytes(packet[head : head + 2], "big"), "?")
        self.book[self.direction, name] += len(packet)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, reader: Reader) -> None:
    """Forward bytes and count them."""
    while data := await source.read(65536):
        sink.write(data)
        reader.feed(data)
        await sink.drain()
    sink.close()


async def count(broker: str, encoding: str, chunk_elements: int) -> Book:
    """Return the bytes of one round after the first, by message."""
    book: Book = Counter()
    after: list[Book] = []
    target = urlsplit(broker)

    async def connected(device_in: asyncio.StreamReader, device_out: asyncio.StreamWriter) -> None:
        broker_in, broker_out = await asyncio.open_connection(target.hostname, target.port)
        up: dict[int, str] = {}
        down: dict[int, str] = {}
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):  # the measurement is over
            await asyncio.gather(
                pump(device_in, broker_out, Reader("up", book, up, down)),
                pump(broker_in, device_out, Reader("down", book, down, up)),
            )

    def committed(record: Record) -> None:
        after.append(book.copy())

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    command: list[str | Path] = [sys.executable, BENCH / "devices.py", f"mqtt://127.0.0.1:{port}", "0", "1", encoding]
    async with proxy:
        with process(command):
            await serve(broker, ROUNDS, chunk_elements=chunk_elements, on_round=committed)
    return Counter({key: (after[-1][key] - after[0][key]) / (ROUNDS - 1) for key in after[-1]})


def count_serial(encoding: str) -> dict[str, float]:
    """Return the bytes of one round after the first on a serial line, by direction."""
    book: Counter[str] = Counter()
    after: list[Counter[str]] = []

    def through(data: bytes, end: int) -> bytes:
        book["up" if end else "down"] += len(data)
        return data

    with Cable(through) as cable:
        command: list[str | Path] = [
            sys.executable,
            BENCH / "devices.py",
            f"serial://{cable.ends[1]}",
            "0",
            "1",
            encoding,
        ]
        with process(command):
            asyncio.run(serve(None, ROUNDS, port=cable.ends[0], on_round=lambda record: after.append(book.copy())))
    return {way: (after[-1][way] - after[0][way]) / (ROUNDS - 1) for way in ("up", "down")}


def measure() -> dict[str, Book]:
    """Return the counts for each way to send an update."""
    ways = {
        "float32, chunks of 4 KiB": ("float32", 1024),
        "float32, one chunk": ("float32", dense(WIDTHS).elements),
        "int8, chunks of 1,024": ("int8", 1024),
        "int8, one chunk": ("int8", dense(WIDTHS).elements),
    }
    books = {}
    for name, (encoding, chunk_elements) in ways.items():
        with private_broker() as broker:
            books[name] = asyncio.run(count(broker, encoding, chunk_elements))
    return books


def total(book: Book, direction: str, names: tuple[str, ...] | None = None) -> float:
    """Return the bytes in one direction: of these messages, or of all."""
    return sum(size for (way, name), size in book.items() if way == direction and (names is None or name in names))


def show_mqtt(books: dict[str, Counter[tuple[str, str]]]) -> dict[str, float]:
    """Print the bytes on MQTT; return their ratios to the payload."""
    ratios: dict[str, float] = {}
    rows: list[tuple[str, ...]] = [("MQTT, one update", "up", "down", "together", "/ 9,640", "whole round", "/ 9,640")]
    for name, book in books.items():
        up, down = total(book, "up", UPDATE), total(book, "down", UPDATE)
        everything = total(book, "up") + total(book, "down")
        ratios[f"MQTT, {name}"] = (up + down) / PAYLOAD
        ratios[f"MQTT, {name}, whole round"] = everything / PAYLOAD
        rows.append(
            (name, f"{up:.0f}", f"{down:.0f}", f"{up + down:.0f}", f"{(up + down) / PAYLOAD:.3f}", f"{everything:.0f}",
             f"{everything / PAYLOAD:.2f}")
        )  # fmt: skip
    table("Bytes on the wire", rows)
    parts = books["float32, chunks of 4 KiB"]
    note("float32, chunks of 4 KiB, with acknowledgements counted under the acknowledged message:")
    for direction in ("up", "down"):
        listed = sorted((name, size) for (way, name), size in parts.items() if way == direction and size)
        note(f"  {direction}: " + ", ".join(f"{name} {size:.0f}" for name, size in listed))
    return ratios


def show_serial() -> dict[str, float]:
    """Print the bytes on a serial line; return their ratios to the payload."""
    ratios: dict[str, float] = {}
    rows: list[tuple[str, ...]] = [("serial, whole round", "up", "down", "together", "/ 9,640")]
    for encoding in ("float32", "int8"):
        ways = count_serial(encoding)
        ratios[f"serial, {encoding}, whole round"] = sum(ways.values()) / PAYLOAD
        rows.append((encoding, *(f"{size:.0f}" for size in (ways["up"], ways["down"], sum(ways.values()))),
                     f"{sum(ways.values()) / PAYLOAD:.2f}"))  # fmt: skip
    table("Bytes on a serial line, both of the model and of its update", rows)
    return ratios


def main() -> None:
    books = measure()
    save(
        "wire_bytes",
        {
            "ratios": show_mqtt(books) | show_serial(),
            "bytes": {n: {f"{d} {m}": s for (d, m), s in b.items() if s} for n, b in books.items()},
        },
    )


if __name__ == "__main__":
    main()
