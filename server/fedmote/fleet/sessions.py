# SPDX-License-Identifier: Apache-2.0
"""Who is connected: one session for each device, and what the device said of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from fedmote.fleet.penalties import Penalties
from fedmote.fleet.selection import Selection
from fedmote.links.link import Send
from fedmote.model.layout import Layout, SubLayout
from fedmote.wire.Hello import Hello


@dataclass(slots=True)
class Session:
    """One device.

    send_on_link: sends on the link that the device uses. boot: Hello's number of the present connection. class_index:
    which of Sessions.classes the device holds. held_round: the round whose update the device held when it said Hello.
    planned_round, begun_round: the round whose plan was sent, and whose UpdateBegin arrived, on this connection.
    come_back_at: when it was told to come back (fedmote.fleet.pace), while it may not be selected and while it may.
    """

    device: str
    send_on_link: Send
    online: bool = False
    boot: int = 0
    class_index: int = 0
    examples: int = 0
    battery: int = 255
    flags: int = 0
    free_memory_kib: int = 0
    held_round: int = 0
    planned_round: int = 0
    begun_round: int = 0
    come_back_at: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def send(self, message: bytes) -> None:
        """Send the device a message."""
        self.send_on_link(self.device, message)

    def greet(self, hello: Hello, class_index: int, send: Send) -> None:
        """Take what a Hello says; a new connection begins."""
        self.send_on_link = send
        self.online, self.boot = True, hello.Boot()
        self.class_index = class_index
        self.examples = hello.Examples()
        self.battery, self.flags = hello.Battery(), hello.Flags()
        self.free_memory_kib = hello.FreeMemoryKib()
        self.held_round = hello.HeldRound()
        self.planned_round = self.begun_round = 0


class Sessions:
    """All sessions of one federation, by device id.

    classes: what each class of devices holds, the whole model first.
    """

    def __init__(self, layout: Layout, selection: Selection, penalties: Penalties) -> None:
        self.layout, self.selection, self.penalties = layout, selection, penalties
        self.classes: tuple[SubLayout, ...] = layout.classes()
        self._class_by_layout = {(part.elements, part.crc32): i for i, part in enumerate(self.classes)}
        self.by_device: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self.by_device)

    def __getitem__(self, device: str) -> Session:
        return self.by_device[device]

    def get(self, device: str) -> Session | None:
        """Return the device's session; None: it has none."""
        return self.by_device.get(device)

    def class_of(self, device: str) -> int:
        """Return the device's class, an index into `classes`; 0, the whole model, for a device without a session."""
        session = self.by_device.get(device)
        return 0 if session is None else session.class_index

    def has_class(self, hello: Hello) -> bool:
        """Tell whether a class of devices has the layout that a Hello names."""
        return _named_layout(hello) in self._class_by_layout

    def class_with(self, hello: Hello) -> int:
        """Return the class whose layout a Hello names. KeyError: there is none."""
        return self._class_by_layout[_named_layout(hello)]

    def ready(self) -> list[str]:
        """Return the devices that are online and may be selected, in order of their ids."""
        return sorted(session.device for session in self.by_device.values() if self._is_ready(session))

    def has_ready(self, count: int) -> bool:
        """Tell whether at least `count` devices are ready.

        It stops at that count: a list of all would cost too much.
        """
        found = (session for session in self.by_device.values() if self._is_ready(session))
        return sum(1 for _ in islice(found, count)) == count

    def is_ready(self, device: str) -> bool:
        """Tell whether a device is online and may be selected."""
        session = self.by_device.get(device)
        return session is not None and self._is_ready(session)

    def holds_update(self, device: str, round: int) -> bool:
        """Tell whether the device held its update of `round` when it said Hello."""
        return self.by_device[device].held_round == round

    def examples(self) -> list[int]:
        """Return how many examples each online device holds, of those that said so."""
        return [session.examples for session in self.by_device.values() if session.online and session.examples]

    def forget_offline(self, keep: set[str]) -> None:
        """Forget the devices that are offline, except those in `keep`."""
        self.by_device = {
            device: session for device, session in self.by_device.items() if session.online or device in keep
        }

    def _is_ready(self, session: Session) -> bool:
        if not session.online or self.penalties.is_paused(session.device):
            return False
        return self.selection.permits(session.flags, session.battery, session.free_memory_kib)


def _named_layout(hello: Hello) -> tuple[int, int]:
    return hello.Elements(), hello.LayoutCrc32()
