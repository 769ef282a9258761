# SPDX-License-Identifier: Apache-2.0
"""All devices of one federation: the way in for each message that a link receives. No I/O, no clock of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from fedmote.errors import StoreError
from fedmote.fleet.coordinators import Assignment, RoundCoordinator, TaskCoordinator
from fedmote.fleet.hello import hello_error
from fedmote.fleet.limits import Limits
from fedmote.fleet.penalties import Penalties
from fedmote.fleet.replies import Replies, hello_request
from fedmote.fleet.selection import Selection
from fedmote.fleet.sessions import Session, Sessions
from fedmote.fleet.slots import Slot
from fedmote.fleet.uploads import Uploads
from fedmote.links.link import Send
from fedmote.model.layout import Layout
from fedmote.wire.Answer import Answer
from fedmote.wire.ChunkRequest import ChunkRequest
from fedmote.wire.codec import Table, decode, encode
from fedmote.wire.DeviceState import DeviceState
from fedmote.wire.Evaluation import Evaluation
from fedmote.wire.Hello import Hello
from fedmote.wire.Progress import Progress
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.UpdateBegin import UpdateBegin
from fedmote.wire.UpdateEnd import UpdateEnd
from fedmote.wire.Withdraw import Withdraw
from fedmote_device import kernels

OTHER_LINK_RETRY_MS = 60_000
MOST_MESSAGE = 128 * 1024  # bytes; a chunk of 16,384 elements and its head
MOST_CONTROL = 8 * 1024  # bytes of any other message; an offer with its ranges may have to wait in memory
_DEVICE = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,63}", re.ASCII)


def _raise(device: str, error: StoreError) -> None:
    raise error


class Fleet:
    """All devices of one federation.

    changed: called when there may be something to do for the round. counters: what was received and dropped.
    on_store_error: called with the device and the error when the database could not be used for a message, which then
    counts as lost; by default the error is raised.
    """

    rounds: RoundCoordinator
    tasks: TaskCoordinator

    def __init__(
        self, layout: Layout, limits: Limits | None = None, changed: Callable[[], None] = lambda: None,
        selection: Selection | None = None,
    ) -> None:  # fmt: skip
        self.layout, self.changed = layout, changed
        self.limits, self.selection = limits or Limits(), selection or Selection()
        self.counters: Counter[str] = Counter()
        self.penalties = Penalties(self.limits.pause_s, lambda: self.now)
        self.sessions = Sessions(layout, self.selection, self.penalties)
        self.replies = Replies(self.limits.retry_ms, self.counters)
        self.uploads = Uploads(self.sessions, self.limits, self.replies, self.counters)
        self.on_store_error: Callable[[str, StoreError], None] = _raise
        self.now = 0.0

    def attach_rounds(self, rounds: RoundCoordinator) -> None:
        """Ask these rounds from now on."""
        self.rounds = self.uploads.rounds = rounds

    # ---- from the links

    def receive(self, device: str, message: bytes, now: float, send: Send) -> None:
        """Act on one message that came from `device` at `now`, on the link that `send` belongs to.

        An invalid message is counted and dropped. It costs the same however many devices there are.
        """
        try:
            self._act(device, message, now, send)
        except StoreError as error:
            self.on_store_error(device, error)

    def link_lost(self, device: str, send: Send) -> None:
        """Note that the device's link broke, the one that `send` belongs to. Its upload stays: it may come back."""
        session = self.sessions.get(device)
        if session is not None and session.online and session.send_on_link == send:
            session.online = False
            self.rounds.device_lost(device)

    # ---- from rounds and tasks

    def send_plan(self, device: str, assignment: Assignment) -> None:
        """Send a device its plan. A device that holds the round's update offers it, and waits for the answer."""
        session = self.sessions[device]
        holds = session.held_round == assignment.round
        session.planned_round = 0 if holds else assignment.round
        session.send(assignment.plan)

    def send_to(self, device: str, message: bytes) -> None:
        """Send a message to a device, if it has a session."""
        session = self.sessions.get(device)
        if session is not None:
            session.send(message)

    def hello_request(self) -> bytes:
        """Return the message that makes devices begin their sessions anew."""
        return hello_request(self.limits.retry_ms)

    def end_round(self) -> None:
        """Discard uploads that are not awaited any longer, then forget devices that are offline and upload nothing."""
        self.uploads.end_round()
        self.sessions.forget_offline(keep=set(self.uploads.slots.by_device))

    def drop_work(self, device: str, round: int) -> None:
        """Tell a device that its work for a round is no longer needed."""
        session = self.sessions.get(device)
        if session is not None and session.online:
            detail = f"round {round} is over; the update came too late"
            self.replies.refuse_update(session, RefusalReason.Closed, detail, round)

    # ---- one message

    def _act(self, device: str, message: bytes, now: float, send: Send) -> None:
        session = self.sessions.get(device)
        if len(message) > MOST_MESSAGE or (session is None and _DEVICE.fullmatch(device) is None):
            self.counters["malformed"] += 1
            return
        self.now = now
        self.counters["messages"] += 1
        self.counters["bytes"] += len(message)
        head = kernels.parse_update_chunk(message)
        if head is not None:
            if session is None or session.send_on_link != send:
                self.counters["unexpected_chunks"] += 1
            else:
                self.uploads.on_chunk(device, message, head, now)
            return
        body = decode(message) if len(message) <= MOST_CONTROL else None
        if body is None:
            self.counters["malformed"] += 1
            return
        self._dispatch(device, session, body, send)
        self.changed()

    def _dispatch(self, device: str, session: Session | None, body: Table, send: Send) -> None:
        if isinstance(body, Hello):
            self._on_hello(device, body, send)
        elif session is not None and session.send_on_link != send:
            self.counters["other_link"] += 1
        elif session is None and isinstance(body, DeviceState):
            self.counters["without_hello"] += 1  # the last will of a device that another server knew
        elif session is None or not (session.online or isinstance(body, DeviceState)):
            self.counters["without_hello"] += 1
            send(device, self.hello_request())
        elif handler := _HANDLERS.get(type(body)):
            handler(self, session, body)
        else:
            self.counters["unexpected"] += 1

    def _on_hello(self, device: str, hello: Hello, send: Send) -> None:
        refusal = hello_error(device, hello, self.sessions)
        if refusal is not None:
            self.replies.refuse_device(Session(device, send), *refusal)
            return
        session = self.sessions.by_device.setdefault(device, Session(device, send))
        busy = session.online or self.uploads.slots.get(device) is not None
        if session.send_on_link != send and busy:
            detail = f"{device} is on another link; give each device an id of its own"
            self.replies.refuse_device(Session(device, send), RefusalReason.Identity, detail, OTHER_LINK_RETRY_MS)
            return
        if session.online and session.boot != hello.Boot():
            self.rounds.device_lost(
                device
            )  # it came back before its loss was noticed; the same number: Welcome was late
        class_index = self.sessions.class_with(hello)
        if session.class_index != class_index:  # other firmware: what it offered is of another vector
            self.uploads.discard(device)
        session.greet(hello, class_index, send)
        self.rounds.device_connected(device)
        self._welcome(session)

    def _welcome(self, session: Session) -> None:
        """Send Welcome, and what the device missed: its plan, a task's plan, the closing notice."""
        device = session.device
        come_back_ms = int(1000 * self.rounds.come_back_s(device))
        open_round = self.rounds.open_round(device)
        session.send(encode("Welcome", boot=session.boot, open_round=open_round, come_back_ms=come_back_ms))
        assignment = self.rounds.assignment(device)
        # A device that holds the round's update offers it by itself; it needs no plan.
        if assignment is not None and session.held_round != assignment.round:
            session.send(assignment.plan)
        if (plan := self.tasks.plan_for(device)) is not None:
            session.send(plan)
        if assignment is not None and (notice := self.rounds.closing_notice) is not None:
            session.send(notice)

    def _on_state(self, session: Session, state: DeviceState) -> None:
        session.battery, session.flags = state.Battery(), state.Flags()
        if not state.Online():
            self.link_lost(session.device, session.send_on_link)

    def _on_withdraw(self, session: Session, withdraw: Withdraw) -> None:
        slot = self.uploads.slots.get(session.device)
        if slot is not None and slot.round == withdraw.Round():
            self.uploads.slots.free(session.device)
        self.rounds.device_withdrew(session.device, withdraw.Round())
        self.tasks.device_withdrew(session.device, withdraw.Round())
        self.uploads.grant_next(self.now)

    def _on_chunk_request(self, session: Session, request: ChunkRequest) -> None:
        chunk = self.rounds.model_chunk(request.Version(), request.Index())
        if chunk is None:
            self.counters["unexpected"] += 1
        else:
            session.send(chunk)

    def _on_result(self, session: Session, result: Evaluation | Answer) -> None:
        self.tasks.take_result(session.device, result)
        # The receipt also goes to a device whose result no longer counts, since it has done its work. It names the plan
        # by its seed, so that no other work ends with it.
        self.replies.send_receipt(session, result.Round(), result.Seed())

    def _on_begin(self, session: Session, begin: UpdateBegin) -> None:
        self.uploads.on_begin(session, begin, self.now)

    def _on_end(self, session: Session, end: UpdateEnd) -> None:
        upload = self.uploads.on_end(session, end, self.now)
        if upload is not None:
            self._fold(session, upload)
            self.uploads.grant_next(self.now)

    def _fold(self, session: Session, upload: Slot) -> None:
        refusal = self.rounds.fold_update(upload.update, upload.crc32)
        if refusal is None:
            self.replies.send_receipt(session, upload.round, upload.crc32)
        else:
            self.replies.refuse_update(session, refusal.reason, refusal.detail, upload.round)


_HANDLERS: dict[type, Callable[[Fleet, Session, Any], None]] = {
    DeviceState: Fleet._on_state,
    Withdraw: Fleet._on_withdraw,
    ChunkRequest: Fleet._on_chunk_request,
    UpdateBegin: Fleet._on_begin,
    UpdateEnd: Fleet._on_end,
    Progress: lambda fleet, session, body: None,
    Evaluation: Fleet._on_result,
    Answer: Fleet._on_result,
}
