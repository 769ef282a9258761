# SPDX-License-Identifier: Apache-2.0
"""The serial link without I/O: two ends on a noisy line with a virtual clock, and its frames read by another codec."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmote_device import CTrainer, Device
from fedmote_device.links import SerialLink

GREET, ACK, DATA = 0, 1, 2


def frames(line: bytes) -> list[bytes]:
    """Return the frames on the line, unstuffed, each checked by zlib."""
    out = []
    for part in filter(None, line.split(b"\0")):
        frame = cobs.decode(part)
        body, (crc,) = frame[:-4], struct.unpack("<I", frame[-4:])
        assert crc == zlib.crc32(body)
        out.append(body)
    return out


def frame(control: int, to: int, expected: bytes, sequence: int, payload: bytes = b"") -> bytes:
    """Make a frame by hand, as docs/wire.md says."""
    body = bytes([control]) + struct.pack("<H", to) + expected + struct.pack("<H", sequence) + payload
    encoded: bytes = cobs.encode(body + struct.pack("<I", zlib.crc32(body)))
    return b"\0" + encoded + b"\0"


def test_frames_are_what_the_document_says() -> None:
    """Hand-made frames greet it, acknowledge and carry a message. Its own frames are read by PyPI's COBS."""
    link = SerialLink(seed=3)
    link.open()
    link.poll(0)
    (greeting,) = frames(link.take())
    assert (greeting[0] & 3, greeting[1:3], greeting[3]) == (GREET, b"\0\0", 1)
    assert 16 <= greeting[4] <= 240
    tag = struct.unpack("<H", greeting[5:7])[0]
    assert tag != 0
    assert link.feed(frame(GREET, tag, bytes([1, 240]), 77), 1) == []
    assert link.connection == 1
    link.take()
    message = b"to the device"
    segment = struct.pack("<I", len(message)) + message
    assert link.feed(frame(DATA, tag, b"\0\0", 0, segment), 2) == [message]
    answer = frames(link.take())[-1]
    assert struct.unpack("<BHH", answer[:5]) == (ACK, 77, len(segment))
    link.send(b"from the device")
    link.poll(3)
    (sent,) = frames(link.take())
    assert sent[0] & 3 == DATA and sent[5:7] == b"\0\0"
    assert sent[7:] == struct.pack("<I", 15) + b"from the device"
    assert link.unsent == 1
    link.feed(frame(ACK, tag, struct.pack("<H", 19), 0), 4)
    assert link.unsent == 0


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.002, 0.01]),
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
)
def test_messages_cross_a_noisy_line_once_and_in_order(seed: int, share: float, sizes: list[int]) -> None:
    """Bytes are flipped, dropped and doubled at random."""
    noise = random.Random(seed)
    ends = SerialLink(seed=1, retransmit_ms=20), SerialLink(seed=2, retransmit_ms=20)
    sent = [[noise.randbytes(size) for size in sizes] for _ in ends]
    got: list[list[bytes]] = [[], []]
    for end, messages in zip(ends, sent, strict=True):
        end.open()
        for message in messages:
            end.send(message)
    now = 0
    while [got[1], got[0]] != sent:
        now += 1
        assert now < 600_000
        for i in (0, 1):
            line = bytearray()
            for byte in ends[i].take():
                kind = noise.randrange(3) if noise.random() < share else None
                line += {None: bytes([byte]), 0: bytes([byte ^ 1 << noise.randrange(8)]), 1: b"", 2: bytes([byte] * 2)}[
                    kind
                ]
            got[1 - i] += ends[1 - i].feed(bytes(line), now)
    assert all(end.counters["lost"] == 0 for end in ends)


def test_what_was_queued_is_forgotten_on_demand() -> None:
    """forget() drops the messages that the link has not begun to send."""
    link = SerialLink()
    link.send(b"never")
    assert link.unsent == 1
    link.forget()
    assert link.unsent == 0


def test_settings_that_the_library_refuses() -> None:
    """A retransmission time out of range is refused."""
    with pytest.raises(ValueError, match="refuses these settings"):
        SerialLink(retransmit_ms=9000)


@pytest.mark.parametrize("url", ["serial:", "serial:///dev/ttyS9?baud=1", "serial:///dev/ttyS9?rate=9600", "tcp://h"])
def test_a_device_refuses_lines_that_cannot_be(url: str) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="expected"):
        Device("a", url, federation="f", trainer=CTrainer((2, 2), np.ones((1, 2), np.float32), np.zeros(1, np.uint8)))
