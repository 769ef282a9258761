# SPDX-License-Identifier: Apache-2.0
"""Links: messages in and out, one file each. They know no rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Send = Callable[[str, bytes], None]
"""A link's way to a device: (device, message)."""

Receive = Callable[[str, bytes, float, Send], None]
"""Where a link puts what it receives: (device, message, now in seconds on the monotonic clock, its own `send`)."""


class Link(Protocol):
    """What the server asks of a link."""

    async def start(self) -> None:
        """Open; ConnectionError, with what to do, when that fails at first. Later losses heal by themselves."""
        ...

    async def stop(self) -> None:
        """Take leave and close."""
        ...

    def broadcast(self, message: bytes) -> None:
        """Send to all devices of this link."""
        ...

    def publish_model(self, version: int, chunks: list[bytes]) -> None:
        """Make a model's chunks available; without any, take them back."""
        ...
