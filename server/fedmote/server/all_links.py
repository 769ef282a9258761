# SPDX-License-Identifier: Apache-2.0
"""The links of one federation, as one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fedmote.fleet.fleet import Fleet
from fedmote.links.link import Link
from fedmote.server.federation import Federation

log = logging.getLogger(__name__)


def make_links(federation: Federation, fleet: Fleet) -> AllLinks:
    """Make the links that a federation names. ValueError: it names none."""
    if not federation.all_links:
        raise ValueError("a federation needs a broker, serial ports or other links")
    return AllLinks([one.make_link(federation.name, fleet.receive, fleet.link_lost) for one in federation.all_links])


class AllLinks:
    """All links of a federation, as one."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = links

    async def start(self) -> None:
        """Start each link. ConnectionError: as Link.start() raises it."""
        for link in self.links:
            await link.start()

    async def stop(self) -> None:
        """Stop all links at once, so that an error or a cancellation of one does not keep another from closing."""
        for error in await asyncio.gather(*(link.stop() for link in self.links), return_exceptions=True):
            if error is not None:
                log.error("a link did not stop in order: %s", error)

    def broadcast(self, message: bytes) -> None:
        """Send a message to all devices of all links."""
        for link in self.links:
            link.broadcast(message)

    def publish_model(self, version: int, chunks: list[bytes]) -> None:
        """Make a model's chunks available on all links; with none, take them back."""
        for link in self.links:
            link.publish_model(version, chunks)
