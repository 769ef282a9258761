# SPDX-License-Identifier: Apache-2.0
"""Why a device that says Hello is not let in."""

from __future__ import annotations

from fedmote.fleet.sessions import Sessions
from fedmote.wire.codec import text
from fedmote.wire.Hello import Hello
from fedmote.wire.RefusalReason import RefusalReason

PROTOCOL = 1


def hello_error(device: str, hello: Hello, sessions: Sessions) -> tuple[int, str] | None:
    """Return why a device is not let in, as (RefusalReason, text); None: it is."""
    named = text(hello.DeviceId())
    if named != device:
        return RefusalReason.Identity, f"this link belongs to {device}, not to {named[:64]}"
    if not hello.ProtocolMin() <= PROTOCOL <= hello.ProtocolMax():
        return RefusalReason.Protocol, f"this server speaks protocol {PROTOCOL}; update the device"
    if not sessions.has_class(hello):
        known = ", or ".join(f"{part.elements} elements, layout {part.crc32:08x}" for part in sessions.classes)
        return RefusalReason.Layout, (
            f"the model has {len(sessions.layout.tensors)} shared tensors, {known}; "
            f"the device has {hello.Elements()}, layout {hello.LayoutCrc32():08x}"
        )
    return None
