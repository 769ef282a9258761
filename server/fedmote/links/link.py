# SPDX-License-Identifier: Apache-2.0
"""The protocol that every link implements. A link moves messages; it knows neither sessions nor rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Send = Callable[[str, bytes], None]
"""A link's function to send a message to one device: (device id, message). It queues and never blocks."""

Receive = Callable[[str, bytes, float, Send], None]
"""The server's function for a received message: (device id, message, time, send).

time: seconds of time.monotonic(). send: this link's Send, by which the server answers.
"""


class Link(Protocol):
    """What the server needs of a link. All calls come from the server's event loop, and none may block it.

    A link is made with the Receive that it calls for each whole message, from `start` on, only on that event loop and
    always with the same `send`. It takes a device's id from the transport, as links/mqtt.py does, or from the
    device's first Hello, as links/serial.py does. A link that notices that a device is gone calls Fleet.link_lost();
    without that call, or a last will, the device counts as online. SECURITY.md says how it must identify its peers.
    """

    async def start(self) -> None:
        """Connect. ConnectionError, whose text says what to do: it failed. Later the link must reconnect by itself."""
        ...

    async def stop(self) -> None:
        """Send what is queued, tell the peers, and close."""
        ...

    def broadcast(self, message: bytes) -> None:
        """Send a message to all devices of this link."""
        ...

    def publish_model(self, version: int, chunks: list[bytes]) -> None:
        """Offer a model's chunks, encoded ModelChunk messages in order; an empty list withdraws them.

        A link on which devices ask for each chunk by ChunkRequest does nothing here: their session answers.
        """
        ...
