# SPDX-License-Identifier: Apache-2.0
"""What is being uploaded: UpdateBegin grants a slot, chunks fill it, UpdateEnd makes an update of it (docs/wire.md)."""

from __future__ import annotations

from collections import Counter

from fedmote.fleet.coordinators import Assignment, RoundCoordinator
from fedmote.fleet.limits import Limits
from fedmote.fleet.offers import Terms, offer_error, open_slot
from fedmote.fleet.replies import Replies
from fedmote.fleet.sessions import Session, Sessions
from fedmote.fleet.slots import Slot, Slots
from fedmote.wire.codec import encode
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.SlotState import SlotState
from fedmote.wire.UpdateBegin import UpdateBegin
from fedmote.wire.UpdateEnd import UpdateEnd
from fedmote_device import kernels


class Uploads:
    """The uploads of one federation.

    rounds: set by Fleet.attach_rounds(). waiting: offers that found no free slot, the one that waits longest first.
    """

    rounds: RoundCoordinator

    def __init__(self, sessions: Sessions, limits: Limits, replies: Replies, counters: Counter[str]) -> None:
        self.sessions, self.limits, self.replies, self.counters = sessions, limits, replies, counters
        self.slots = Slots(limits, counters)
        self.waiting: dict[str, UpdateBegin] = {}

    def on_begin(self, session: Session, begin: UpdateBegin, now: float) -> None:
        """Grant the offer a slot, or answer why not."""
        if self._answer_if_closed(session, begin.Round(), begin.Crc32()):
            return
        assignment = self._assignment_for(session, begin)
        if assignment is None:
            return
        slot = self.slots.get(session.device)
        granted_by_plan = False
        if slot is None or not slot.is_of(begin):
            slot = self._open(session, begin, assignment, now)
            if slot is None:
                return
            granted_by_plan = (
                assignment.slot_granted
                and session.planned_round == slot.round
                and session.begun_round != slot.round
            )  # fmt: skip
        session.begun_round = slot.round
        if not granted_by_plan:  # otherwise the chunks are on their way already
            slot.touched = now
            self._send_status(session, slot, SlotState.Granted)

    def on_chunk(self, device: str, message: bytes, head: kernels.ChunkHead, now: float) -> None:
        """Put a chunk in its place, or count why not."""
        round, index, offset, size, scale = head
        slot = self.slots.by_device.get(device)
        if slot is None or slot.round != round or index >= len(slot.received):
            self.counters["unexpected_chunks"] += 1
        elif not slot.place_chunk(index, memoryview(message)[offset : offset + size], scale, now):
            self.counters["wrong_chunks"] += 1

    def on_end(self, session: Session, end: UpdateEnd, now: float) -> Slot | None:
        """Return the upload if it is complete, and free its slot. None: the device was answered what is missing."""
        round, crc32 = end.Round(), end.Crc32()
        if self._answer_if_closed(session, round, crc32):
            return None
        slot = self.slots.get(session.device)
        if slot is None or slot.crc32 != crc32:
            # The slot was given up, or never opened: the device has to offer the update again.
            self.replies.send_wait(session, round, crc32)
            return None
        if slot.missing:
            slot.touched = now
            self._send_status(session, slot, SlotState.Missing)
            return None
        self.slots.free(session.device)
        if kernels.crc32(slot.update.data) == slot.crc32:
            return slot
        detail = "the chunks do not match the update's CRC-32"
        self.replies.refuse_update(session, RefusalReason.Checksum, detail, slot.round)
        self.rounds.device_refused(session.device, slot.round)
        self.grant_next(now)
        return None

    def grant_next(self, now: float) -> None:
        """Grant free slots to the offers that wait, the longest wait first, before their devices ask again."""
        while self.waiting and self.slots.make_room(now):
            device, begin = next(iter(self.waiting.items()))
            del self.waiting[device]
            session = self.sessions.get(device)
            if session is not None and session.online and self.slots.get(device) is None:
                self.on_begin(session, begin, now)

    def discard(self, device: str) -> None:
        """Discard what the device offered and uploaded."""
        self.slots.free(device)
        self.waiting.pop(device, None)

    def end_round(self) -> None:
        """Discard the offers and uploads that are not awaited any longer."""
        self.waiting = {
            device: begin for device, begin in self.waiting.items() if self._is_awaited(device, begin.Round())
        }
        for device, slot in list(self.slots.by_device.items()):
            if not self._is_awaited(device, slot.round):
                self.slots.free(device)

    def _is_awaited(self, device: str, round: int) -> bool:
        assignment = self.rounds.assignment(device)
        return assignment is not None and assignment.round == round

    def _answer_if_closed(self, session: Session, round: int, crc32: int) -> bool:
        """Answer for an update that was folded, or whose round is over. False: neither, and nothing was answered."""
        if self.rounds.folded_crc32(session.device, round) is not None:
            # The first update counts. If the device sent another one since, its receipt does not name the first.
            self.replies.send_receipt(session, round, crc32)
        elif (version := self.rounds.committed_version(session.device, round)) is not None:
            self.rounds.device_late(session.device, round)
            session.send(encode("Commit", round=round, model_version=version))
        elif self.rounds.open_round(session.device) == round:
            return False
        else:
            self.replies.refuse_update(session, RefusalReason.Closed, f"round {round} is not open", round)
        return True

    def _assignment_for(self, session: Session, begin: UpdateBegin) -> Assignment | None:
        """Return the assignment that an offer answers to. None: there is none, and the device was told."""
        device, round = session.device, begin.Round()
        assignment = self.rounds.assignment(device)
        if assignment is not None and assignment.round == round:
            return assignment
        if not self.rounds.may_be_assigned(device, round):
            detail = f"{device} was not selected for round {round}"
            self.replies.refuse_update(session, RefusalReason.NotPlanned, detail, round)
            return None
        session.held_round = round
        self.rounds.device_connected(device)  # it may join a round that began without it
        assignment = self.rounds.assignment(device)
        if assignment is None:
            self.replies.send_wait(session, round, begin.Crc32())
        return assignment

    def _open(self, session: Session, begin: UpdateBegin, assignment: Assignment, now: float) -> Slot | None:
        """Open a slot for an offer. None: it is wrong or there is no room, and the device was told."""
        device = session.device
        part = self.sessions.classes[session.class_index]
        terms = Terms(
            assignment, part, self.rounds.encodings, self.rounds.chunk_elements, self.limits.max_examples
        )  # fmt: skip
        self.slots.free(device)
        error = offer_error(begin, terms)
        if error is not None:
            self.replies.refuse_update(session, RefusalReason.Malformed, error, begin.Round())
            self.rounds.device_refused(device, begin.Round())
            return None
        if not self.slots.make_room(now):
            self.waiting[device] = begin
            self.replies.send_wait(session, begin.Round(), begin.Crc32())
            return None
        self.waiting.pop(device, None)
        local_examples = min(session.examples, self.limits.max_examples)
        return self.slots.open(device, open_slot(device, begin, part, local_examples, now))

    def _send_status(self, session: Session, slot: Slot, state: int) -> None:
        first, received = slot.window()
        session.send(
            encode("UpdateStatus", round=slot.round, crc32=slot.crc32, state=state, first=first, received=received)
        )
