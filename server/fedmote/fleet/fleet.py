# SPDX-License-Identifier: Apache-2.0
"""The devices' protocol state: who is there, which chunks of whose upload have come. No I/O and no clock of its own."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import StoreError
from fedmote.fleet.coordinators import Assignment, TaskDesk, Work
from fedmote.fleet.limits import Limits
from fedmote.fleet.selection import Selection
from fedmote.fleet.sessions import Session
from fedmote.fleet.uploads import Slot
from fedmote.learning.update import Update
from fedmote.links.link import Send
from fedmote.model.layout import Layout, SubLayout
from fedmote.wire.codec import decode, encode
from fedmote.wire.Encoding import Encoding
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.SlotState import SlotState
from fedmote.wire.UpdateKind import UpdateKind
from fedmote_device import kernels

log = logging.getLogger(__name__)

PROTOCOL = 1
MOST_REFUSALS = 1000  # remembered, so that none is logged again and again
OTHER_LINK_RETRY_MS = 60_000
MOST_RANGES = 256
MOST_MESSAGE = 128 * 1024  # bytes; a chunk of 16,384 elements and its head
MOST_CONTROL = 8 * 1024  # of any other message: an offer with its ranges may have to wait, and is kept for so long
_DEVICE = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,63}", re.ASCII)
_WIDTH = {Encoding.Float32: 4, Encoding.Int8: 1}


def _raise(device: str, error: StoreError) -> None:
    raise error


@dataclass
class Fleet:
    """All sessions of one federation. `changed` is called when there may be something to do for the round."""

    layout: Layout
    limits: Limits = field(default_factory=Limits)
    changed: Callable[[], None] = lambda: None
    selection: Selection = field(default_factory=Selection)
    classes: tuple[SubLayout, ...] = field(init=False)
    work: Work = field(init=False)  # says so itself
    tasks: TaskDesk = field(init=False)  # and so do these
    sessions: dict[str, Session] = field(default_factory=dict)
    waiting: dict[str, Any] = field(default_factory=dict)  # the offers of selected devices that found no slot, in order
    counters: Counter[str] = field(default_factory=Counter)
    refusals: dict[str, str] = field(default_factory=dict)  # why each was not let in, as logged last
    now: float = 0.0
    trouble: Callable[[str, StoreError], None] = _raise  # told of a message that was lost to the database's trouble

    def __post_init__(self) -> None:
        """Work out what each class of devices holds."""
        self.classes = self.layout.classes()

    def size_of(self, device: str) -> int:
        """Return the class of a device that said Hello: an index into `classes`; 0, the whole model, for others."""
        session = self.sessions.get(device)
        return 0 if session is None else session.size

    def ready(self) -> list[str]:
        """Return the devices that are there and may be asked, in a fixed order."""
        return sorted(s.device for s in self.sessions.values() if s.online and self._may_ask(s))

    def are_ready(self, count: int) -> bool:
        """Tell whether so many are, at the cost of finding them: with each Hello, a list of all would be too much."""
        found = (s for s in self.sessions.values() if s.online and self._may_ask(s))
        return sum(1 for _ in islice(found, count)) == count

    def is_ready(self, device: str) -> bool:
        """Tell whether a device is there and may be asked."""
        session = self.sessions.get(device)
        return session is not None and session.online and self._may_ask(session)

    def _may_ask(self, session: Session) -> bool:
        return self.selection.permits(session.flags, session.battery, session.free_memory_kib)

    def receive(self, device: str, message: bytes, now: float, send: Send) -> None:
        """Act on one message that came from `device` at `now`, on the link that `send` belongs to.

        What is not valid is counted and dropped. A message that the database's trouble kept from its effect counts as
        lost.
        """
        try:
            self._act(device, message, now, send)
        except StoreError as error:
            self.trouble(device, error)

    def _act(self, device: str, message: bytes, now: float, send: Send) -> None:
        if len(message) > MOST_MESSAGE or _DEVICE.fullmatch(device) is None:
            self.counters["malformed"] += 1
            return
        self.now = now
        self.counters["messages"] += 1
        self.counters["bytes"] += len(message)
        chunk = kernels.parse_update_chunk(message)
        if chunk is not None:
            self._on_chunk(device, message, chunk, send)
            return
        decoded = decode(message) if len(message) <= MOST_CONTROL else None
        if decoded is None:
            self.counters["malformed"] += 1
            return
        name, body = decoded
        session = self.sessions.get(device)
        if name == "Hello":
            self._on_hello(device, body, send)
        elif session is not None and session.link != send:
            self.counters["other_link"] += 1
        elif name != "DeviceState" and (session is None or not session.online):
            self.counters["without_hello"] += 1
            send(device, self.say_hello())
        elif session is None:
            self.counters["without_hello"] += 1  # the will of a device that another server knew
        elif handler := _HANDLERS.get(name):
            handler(self, session, body)
        else:
            self.counters["unexpected"] += 1
        self.changed()

    def say_hello(self) -> bytes:
        """Return the message that has a device begin its session anew, as after a restart of the server."""
        wait = self.limits.retry_ms
        return encode("Refusal", reason=RefusalReason.Malformed, retry_after_ms=wait, detail="say Hello")

    def holds(self, device: str, round: int) -> bool:
        """Tell whether the device still had its update of `round` when it came."""
        return self.sessions[device].held_round == round

    def lost(self, device: str, send: Send) -> None:
        """The device's link, the one that `send` belongs to, broke. Its slot stays for a while: it may come back."""
        session = self.sessions.get(device)
        if session is not None and session.online and session.link == send:
            session.online = False
            self.work.gone(device)

    def plan(self, device: str, assignment: Assignment) -> None:
        """Send a device its plan. One that holds the round's update offers that, and waits for the answer."""
        session = self.sessions[device]
        session.planned_round = 0 if self.holds(device, assignment.round) else assignment.round
        session.send(assignment.plan)

    def slots(self) -> list[Slot]:
        """Return the uploads in flight."""
        return [s.slot for s in self.sessions.values() if s.slot is not None]

    def end_round(self) -> None:
        """Free the slots of whom nothing is awaited, and forget who is away without one: it is no session."""
        self.waiting = {device: begin for device, begin in self.waiting.items() if self._awaited(device, begin.Round())}
        for session in self.sessions.values():
            if session.slot is not None and not self._awaited(session.device, session.slot.round):
                session.slot = None
        self.sessions = {
            device: session for device, session in self.sessions.items() if session.online or session.slot is not None
        }

    def close(self, device: str, round: int) -> None:
        """Have a device drop the work of a round that nobody waits for any longer."""
        session = self.sessions.get(device)
        if session is not None and session.online:
            detail = f"round {round} is over; it came too late"
            self._refuse(session, RefusalReason.Closed, detail, round=round)

    def tell(self, device: str, message: bytes) -> None:
        """Send a message to a device that said Hello here."""
        session = self.sessions.get(device)
        if session is not None:
            session.send(message)

    def _awaited(self, device: str, round: int) -> bool:
        assignment = self.work.assignment(device)
        return assignment is not None and assignment.round == round

    def _refuse(self, session: Session, reason: int, detail: str, round: int = 0, retry_after_ms: int = 0) -> None:
        self.counters["refused"] += 1
        if round == 0 and self.refusals.get(session.device) != detail:
            log.warning("%s is refused: %s", session.device, detail)
            if len(self.refusals) >= MOST_REFUSALS:
                self.refusals.clear()
            self.refusals[session.device] = detail
        session.send(encode("Refusal", reason=reason, round=round, retry_after_ms=retry_after_ms, detail=detail))

    def _on_hello(self, device: str, hello: Any, send: Send) -> None:
        newcomer = Session(device, send)
        said = hello.DeviceId().decode(errors="replace")
        if said != device:
            self._refuse(newcomer, RefusalReason.Identity, f"this link belongs to {device}, not to {said[:64]}")
            return
        if not hello.ProtocolMin() <= PROTOCOL <= hello.ProtocolMax():
            detail = f"this server speaks protocol {PROTOCOL}; update the device"
            self._refuse(newcomer, RefusalReason.Protocol, detail)
            return
        said_layout = (hello.Elements(), hello.LayoutCrc32())
        size = next((k for k, one in enumerate(self.classes) if said_layout == (one.elements, one.crc32)), None)
        if size is None:
            known = ", or ".join(f"{one.elements} elements, layout {one.crc32:08x}" for one in self.classes)
            detail = (
                f"the model has {len(self.layout.tensors)} shared tensors, {known}; "
                f"the device has {hello.Elements()}, layout {hello.LayoutCrc32():08x}"
            )
            self._refuse(newcomer, RefusalReason.Layout, detail)
            return
        session = self.sessions.setdefault(device, newcomer)
        if session.link != send and (session.online or session.slot is not None):
            detail = f"{device} is on another link; give each device an id of its own"
            self._refuse(newcomer, RefusalReason.Identity, detail, retry_after_ms=OTHER_LINK_RETRY_MS)
            return
        session.link = send
        if session.online and session.boot != hello.Boot():
            self.work.gone(device)  # it came back before its loss was noticed; with the same number, Welcome was late
        session.online, session.boot = True, hello.Boot()
        if session.size != size:  # other firmware: what it offered, and what came of that, is of another vector
            session.size, session.slot = size, None
            self.waiting.pop(device, None)
        session.examples = hello.Examples()
        session.battery, session.flags = hello.Battery(), hello.Flags()
        session.free_memory_kib = hello.FreeMemoryKib()
        session.held_round = hello.HeldRound()
        session.begun_round = 0
        self.work.came(device)
        come_back_ms = int(1000 * self.work.come_back_s(device))
        open_round = self.work.open_round(device)
        session.send(encode("Welcome", boot=hello.Boot(), open_round=open_round, come_back_ms=come_back_ms))
        assignment = self.work.assignment(device)
        # A device that holds this round's update offers it by itself; it needs no plan.
        session.planned_round = 0
        if assignment is not None and hello.HeldRound() != assignment.round:
            session.send(assignment.plan)
        if (plan := self.tasks.plan(device)) is not None:
            session.send(plan)
        if assignment is not None and (notice := self.work.closing_notice) is not None:
            session.send(notice)

    def _on_state(self, session: Session, state: Any) -> None:
        session.battery, session.flags = state.Battery(), state.Flags()
        if not state.Online():
            self.lost(session.device, session.link)

    def _on_withdraw(self, session: Session, withdraw: Any) -> None:
        if session.slot is not None and session.slot.round == withdraw.Round():
            session.slot = None
        self.work.withdrew(session.device, withdraw.Round())
        self.tasks.withdrew(session.device, withdraw.Round())
        self._grant_next()

    def _on_chunk_request(self, session: Session, request: Any) -> None:
        chunk = self.work.chunk(request.Version(), request.Index())
        if chunk is None:
            self.counters["unexpected"] += 1
        else:
            session.send(chunk)

    def _on_result(self, session: Session, name: str, result: Any) -> None:
        self.tasks.result(session.device, name, result)
        # Also for one that no longer counts: the device has done its work. It is told which, so that no other ends.
        session.send(encode("Receipt", round=result.Round(), crc32=result.Seed()))

    def _settled(self, session: Session, round: int, crc32: int) -> bool:
        """Answer for a round that is over or an update that was folded. False: neither."""
        if self.work.folded(session.device, round) is not None:
            # Whatever came first counts. A second, different update of the round is told so by its own receipt.
            session.send(encode("Receipt", round=round, crc32=crc32))
        elif (version := self.work.committed(session.device, round)) is not None:
            session.send(encode("Commit", round=round, model_version=version))
        elif self.work.open_round(session.device) == round:
            return False
        else:
            self._refuse(session, RefusalReason.Closed, f"round {round} is not open", round=round)
        return True

    def _on_begin(self, session: Session, begin: Any) -> None:
        round, crc32 = begin.Round(), begin.Crc32()
        if self._settled(session, round, crc32):
            return
        assignment = self.work.assignment(session.device)
        if assignment is None or assignment.round != round:
            if not self.work.may_plan(session.device, round):
                detail = f"{session.device} was not selected for round {round}"
                self._refuse(session, RefusalReason.NotPlanned, detail, round=round)
                return
            session.held_round = round
            self.work.came(session.device)  # it may join a round that began without it
            assignment = self.work.assignment(session.device)
            if assignment is None:
                self._send_wait(session, round, crc32)
                return
        slot = session.slot
        if slot is None or not slot.is_of(begin):
            wrong = self._begin_error(session.device, begin, assignment)
            if wrong is not None:
                self._refuse(session, RefusalReason.Malformed, wrong, round=round)
                session.slot = None
                self.work.withdrew(session.device, round)
                return
            session.slot = None
            if not self._free_slot():
                self.waiting[session.device] = begin
                self._send_wait(session, round, crc32)
                return
            self.waiting.pop(session.device, None)
            slot = session.slot = self._open_slot(session.device, begin)
            first_offer = assignment.slot_granted and session.planned_round == round and session.begun_round != round
            session.begun_round = round
            if first_offer:
                return  # the plan granted the slot; the chunks are on their way
        slot.touched = self.now
        session.begun_round = round
        self._send_status(session, slot, SlotState.Granted)

    def _begin_error(self, device: str, begin: Any, assignment: Assignment) -> str | None:
        """Say what is wrong with an UpdateBegin; None: nothing."""
        if begin.BaseVersion() != assignment.base_version:
            return f"it starts from model {begin.BaseVersion()}, the round from {assignment.base_version}"
        if begin.BaseCrc32() not in (0, assignment.base_crc32):
            return f"it starts from another model {begin.BaseVersion()}: was the server's database made anew?"
        if begin.RangesLength() > MOST_RANGES:
            return f"{begin.RangesLength()} ranges; at most {MOST_RANGES} are taken"
        if (
            begin.Encoding() not in _WIDTH
            or not self.work.encodings >> begin.Encoding() & 1
            or begin.ChunkElements() != self.work.chunk_elements
        ):
            return f"encoding {begin.Encoding()} in chunks of {begin.ChunkElements()} is not what the plan asked for"
        if not 1 <= begin.Examples() <= self.limits.max_examples:
            return f"{begin.Examples()} examples; 1 to {self.limits.max_examples} are believed"
        if begin.Steps() < 1 or not math.isfinite(begin.Loss()):
            return "no step was done, or the loss is no number"
        ranges = _ranges(begin)
        elements = self.classes[self.size_of(device)].elements
        total = elements if ranges is None else int(ranges[:, 1].sum(dtype=np.uint64))
        if ranges is not None and not _ascending(ranges, elements):
            return "its ranges overlap, are empty or leave the model"
        if begin.Elements() != total:
            return f"it says {begin.Elements()} elements, its ranges hold {total}"
        return None

    def _open_slot(self, device: str, begin: Any) -> Slot:
        width = _WIDTH[begin.Encoding()]
        elements, each = begin.Elements(), begin.ChunkElements()
        chunks = -(-elements // each)
        update = Update(
            device=device,
            examples=begin.Examples(),
            steps=begin.Steps(),
            planned_steps=begin.PlannedSteps(),
            loss=begin.Loss(),
            encoding=begin.Encoding(),
            delta=begin.Kind() == UpdateKind.Delta,
            chunk_elements=each,
            data=bytearray(elements * width),
            scales=np.zeros(chunks, np.float32) if width == 1 else None,
            received=None,
            ranges=self.classes[self.size_of(device)].ranges(_ranges(begin)),
            local_examples=min(self.sessions[device].examples, self.limits.max_examples),
        )
        return Slot(begin.Round(), begin.Crc32(), each, width, elements, update, bytearray(chunks), chunks, self.now)

    def _grant_next(self) -> None:
        """A slot came free: whoever waits longest need not wait until it asks again."""
        while self.waiting and self._free_slot():
            device, begin = next(iter(self.waiting.items()))
            del self.waiting[device]
            session = self.sessions.get(device)
            if session is not None and session.online and session.slot is None:
                self._on_begin(session, begin)

    def _free_slot(self) -> bool:
        """Is there room for one more upload? One that fell silent makes room."""
        held = [s for s in self.sessions.values() if s.slot is not None]
        if len(held) < self.limits.slots:
            return True
        oldest = min(held, key=lambda s: s.slot.touched if s.slot else 0.0)
        if oldest.slot is not None and self.now - oldest.slot.touched >= self.limits.slot_silence_s:
            oldest.slot = None
            self.counters["slots_reclaimed"] += 1
            return True
        return False

    def _send_status(self, session: Session, slot: Slot, state: int) -> None:
        first, received = slot.window()
        session.send(
            encode("UpdateStatus", round=slot.round, crc32=slot.crc32, state=state, first=first, received=received),
        )

    def _send_wait(self, session: Session, round: int, crc32: int) -> None:
        """Have the device offer its update again later."""
        wait = self.limits.retry_ms
        status = encode("UpdateStatus", round=round, crc32=crc32, state=SlotState.Wait, retry_after_ms=wait)
        session.send(status)

    def _on_chunk(self, device: str, message: bytes, chunk: tuple[int, int, float, int, int], send: Send) -> None:
        round, index, scale, offset, size = chunk
        session = self.sessions.get(device)
        slot = session.slot if session is not None and session.link == send else None
        if slot is None or slot.round != round or index >= len(slot.received):
            self.counters["unexpected_chunks"] += 1
            return
        at = index * slot.chunk_elements * slot.width
        if size != min(slot.chunk_elements * slot.width, len(slot.update.data) - at):
            self.counters["wrong_chunks"] += 1
            return
        slot.update.data[at : at + size] = memoryview(message)[offset : offset + size]
        if slot.update.scales is not None:
            slot.update.scales[index] = scale
        slot.touched = self.now
        if not slot.received[index]:
            slot.received[index] = 1
            slot.missing -= 1

    def _on_end(self, session: Session, end: Any) -> None:
        round, crc32 = end.Round(), end.Crc32()
        if self._settled(session, round, crc32):
            return
        slot = session.slot
        if slot is None or slot.crc32 != crc32:
            # Its slot is gone, or was never opened: it has to offer the update again.
            self._send_wait(session, round, crc32)
        elif slot.missing:
            slot.touched = self.now
            self._send_status(session, slot, SlotState.Missing)
        else:
            session.slot = None
            self._finish(session, slot)
            self._grant_next()

    def _finish(self, session: Session, slot: Slot) -> None:
        if kernels.crc32(slot.update.data) != slot.crc32:
            detail = "the chunks do not match the update's CRC-32"
            self._refuse(session, RefusalReason.Checksum, detail, round=slot.round)
            self.work.withdrew(session.device, slot.round)
            return
        reason = self.work.take(slot.update, slot.crc32)
        if reason is None:
            session.send(encode("Receipt", round=slot.round, crc32=slot.crc32))
        else:
            self._refuse(session, reason, "the update was not taken", round=slot.round)


_HANDLERS: dict[str, Callable[[Fleet, Session, Any], None]] = {
    "DeviceState": Fleet._on_state,
    "Withdraw": Fleet._on_withdraw,
    "ChunkRequest": Fleet._on_chunk_request,
    "UpdateBegin": Fleet._on_begin,
    "UpdateEnd": Fleet._on_end,
    "Progress": lambda fleet, session, body: None,
    "Evaluation": lambda fleet, session, body: fleet._on_result(session, "Evaluation", body),
    "Answer": lambda fleet, session, body: fleet._on_result(session, "Answer", body),
}


def _ranges(begin: Any) -> NDArray[np.uint32] | None:
    if begin.RangesLength() == 0:
        return None
    pairs = [(begin.Ranges(i).First(), begin.Ranges(i).Count()) for i in range(begin.RangesLength())]
    return np.array(pairs, np.uint32)


def _ascending(ranges: NDArray[np.uint32], elements: int) -> bool:
    wide = ranges.astype(np.uint64)
    ends = wide[:, 0] + wide[:, 1]
    return bool((wide[:, 1] > 0).all() and (wide[1:, 0] >= ends[:-1]).all() and int(ends[-1]) <= elements)
