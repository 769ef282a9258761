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


Lost = Callable[[str, Send], None]
"""The server's function for a device whose link broke: (device id, the Send of that link)."""


class Link(Protocol):
    """What the server needs of a link. All calls come from the server's event loop, and none may block it.

    LinkSettings.make_link() makes it with the functions that it calls: `receive` for each whole message, from `start`
    on, only on that event loop and always with the same Send, by which the server answers; `lost` when it notices that
    a device is gone. Without that call, or a last will, the device counts as online. It takes a device's id from the
    transport, as links/mqtt.py does, or from the device's first Hello, as links/serial.py does. SECURITY.md says how it
    must identify its peers. A link that learns where a device is from its messages reaches no device after a restart,
    until the device speaks: such devices must send something now and then.
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


class LinkSettings(Protocol):
    """The settings of one link, and how the server makes it: an entry of Federation.links."""

    @property
    def addresses(self) -> list[str]:
        """Where devices connect: for people, without passwords."""
        ...

    def make_link(self, federation: str, receive: Receive, lost: Lost) -> Link:
        """Make the link of the federation with that name; nothing is connected yet. ValueError: a setting is wrong."""
        ...
