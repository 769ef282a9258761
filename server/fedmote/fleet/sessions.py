# SPDX-License-Identifier: Apache-2.0
"""One device's session: what it said of itself, and which link it is on."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmote.fleet.uploads import Slot
from fedmote.links.link import Send


@dataclass(slots=True)
class Session:
    """One device."""

    device: str
    link: Send  # of the link it is on
    online: bool = False
    boot: int = 0  # Hello's number of the present connection
    size: int = 0  # its class: which of Fleet.classes it holds
    examples: int = 0
    battery: int = 255
    flags: int = 0
    free_memory_kib: int = 0
    slot: Slot | None = None
    held_round: int = 0  # whose update it had when it said Hello
    planned_round: int = 0  # whose plan went out on this connection
    begun_round: int = 0  # whose UpdateBegin came on this connection
    places: list[float] = field(default_factory=lambda: [0.0, 0.0])  # when it is to come: while it is not ready, and is

    def send(self, message: bytes) -> None:
        """Send the device a message."""
        self.link(self.device, message)
