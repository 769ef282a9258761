# SPDX-License-Identifier: Apache-2.0
"""What the server answers to a device, and the log of refusals."""

from __future__ import annotations

import logging
from collections import Counter

from fedmote.fleet.sessions import Session
from fedmote.wire.codec import encode
from fedmote.wire.RefusalReason import RefusalReason
from fedmote.wire.SlotState import SlotState

log = logging.getLogger(__name__)

_FAULTS = (RefusalReason.Malformed, RefusalReason.NonFinite, RefusalReason.Checksum, RefusalReason.TooLarge)
MOST_REFUSALS = 1000  # remembered devices: each refusal is logged once


def hello_request(retry_ms: int) -> bytes:
    """Return the message that makes a device begin its session anew, for example after a restart of the server."""
    return encode("Refusal", reason=RefusalReason.Malformed, retry_after_ms=retry_ms, detail="say Hello")


class Replies:
    """Sends answers on a session's link.

    retry_ms: after how many milliseconds a device should ask again. refusals: why each device was not let in, as it was
    logged last. faults: the round of each device's latest refused update that was logged.
    """

    def __init__(self, retry_ms: int, counters: Counter[str]) -> None:
        self.retry_ms, self.counters = retry_ms, counters
        self.refusals: dict[str, str] = {}
        self.faults: dict[str, int] = {}

    def refuse_device(self, session: Session, reason: int, detail: str, retry_after_ms: int = 0) -> None:
        """Refuse a device, and log why unless that was logged before."""
        if self.refusals.get(session.device) != detail:
            log.warning("%s is refused: %s", session.device, detail)
            if len(self.refusals) >= MOST_REFUSALS:
                self.refusals.clear()
            self.refusals[session.device] = detail
        self._refuse(session, reason, detail, 0, retry_after_ms)

    def refuse_update(self, session: Session, reason: int, detail: str, round: int) -> None:
        """Refuse a device's update of a round. A fault of the device is logged, once in a round."""
        if reason in _FAULTS and self.faults.get(session.device) != round:
            log.warning("%s: its update of round %d is refused: %s", session.device, round, detail)
            if len(self.faults) >= MOST_REFUSALS:
                self.faults.clear()
            self.faults[session.device] = round
        self._refuse(session, reason, detail, round, 0)

    def _refuse(self, session: Session, reason: int, detail: str, round: int, retry_after_ms: int) -> None:
        self.counters["refused"] += 1
        session.send(encode("Refusal", reason=reason, round=round, retry_after_ms=retry_after_ms, detail=detail))

    def send_receipt(self, session: Session, round: int, crc32: int) -> None:
        """Tell a device that its update or its result was taken."""
        session.send(encode("Receipt", round=round, crc32=crc32))

    def send_wait(self, session: Session, round: int, crc32: int) -> None:
        """Tell a device to offer its update again later."""
        session.send(
            encode("UpdateStatus", round=round, crc32=crc32, state=SlotState.Wait, retry_after_ms=self.retry_ms)
        )
