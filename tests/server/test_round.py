# SPDX-License-Identifier: Apache-2.0
"""Rounds and sessions without I/O: the test supplies every message and the time."""

from __future__ import annotations

from typing import Any

import numpy as np
from fake_fleet import CHUNK, ELEMENTS, LAYOUT, FakeFleet, new_store

from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.rounds.synchronous import State
from fedmote.server.assembly import start_rounds
from fedmote.wire import codec


def test_a_round_opened_again_keeps_what_it_folded() -> None:
    """With too few reports at the hard deadline, other devices are asked. No update is lost or counted twice."""
    bench = FakeFleet(devices=2, min_reports=2)
    bench.come("a", "b")
    bench.report("a", 1.0, examples=3)
    bench.tick(20.0)
    assert bench.state() is State.SELECTING and set(bench.rounds.receipts) == {"a"} and bench.records == []
    bench.report("a", 1.0, examples=3)  # it did not hear the receipt
    bench.tick(21.0)
    assert bench.sync.cohort.planned == ["b"]
    bench.report("b", 5.0)
    bench.tick(22.0)
    assert [(r.round, r.selected, r.reported, r.examples) for r in bench.records] == [(1, 2, 2, 4)]
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 2, np.float32))


def test_a_restarted_server_waits_for_those_who_may_hold_work() -> None:
    """The first device that reconnects is not the whole round. A new federation does not wait for any device."""
    store = new_store()
    before = FakeFleet(store=store)
    before.come("a", "b")
    assert before.state() is State.TRAINING
    after = FakeFleet(store=store, resume_s=3.0)
    after.come("a")
    after.now = 2.9
    after.come("b")
    assert after.state() is State.SELECTING
    after.tick(3.0)
    assert after.sync.cohort.selected == ["a", "b"]


def test_work_that_a_dead_server_had_asked_for_is_waited_for() -> None:
    """After a crash, devices may think they are done: their hard deadline is longer and late ones are accepted."""
    store = new_store()
    before = FakeFleet(store=store)
    before.come("a", "b", "c")
    for device in "abc":
        before.report(device, 3.0)  # folded, and lost with the server
    after = FakeFleet(store=store, resume_s=3.0, goal=1.0)
    after.tick(0.0)
    after.come("a", held_round=1)
    after.come("d")
    after.tick(3.0)
    assert after.sync.cohort.selected == ["a", "d"]
    after.report("d", 6.0)
    after.come("b", held_round=1)  # it had no connection when the round began again
    after.come("e")
    assert after.sync.cohort.selected == ["a", "d", "b"] and after.rounds.record.selected == 3
    after.tick(3.0 + 20.0)
    after.tick(3.0 + 79.0)
    assert after.records == []
    after.report("a", 3.0)
    after.tick(3.0 + 79.5)
    assert after.records == []
    after.tick(3.0 + 80.0)  # four times the hard deadline: b does not reconnect
    assert [(r.round, r.selected, r.reported) for r in after.records] == [(1, 3, 2)]
    after.come("c", held_round=1)
    assert after.said[-2:] != [("c", "Plan")] and after.rounds.number == 2
    after.tick(3.0 + 81.0)
    assert "c" in after.sync.cohort.selected and after.sync.cohort.holders == set()


def test_work_asked_for_before_joins_the_round_that_was_opened_again() -> None:
    """An offline device is not told to drop its update when other devices are asked to train from the same model."""
    bench = FakeFleet(min_reports=2, goal=1.0)
    bench.come("a", "b")
    bench.fleet.link_lost("a", bench.send)
    bench.tick(20.0)
    bench.tick(21.0)
    assert bench.sync.cohort.selected == ["b"]
    bench.come("a")  # training, without an update yet
    assert bench.said[-1] == ("a", "Welcome") and bench.sync.cohort.selected == ["b"]
    bench.report("a", 1.0)
    bench.report("b", 3.0)
    bench.tick(22.0)
    assert [(r.selected, r.reported) for r in bench.records] == [(2, 2)]
    assert ("a", "Refusal") not in bench.said


def test_who_withdrew_does_not_join_again() -> None:
    bench = FakeFleet(min_reports=2)
    bench.come("a", "b")
    bench.hear("a", "Withdraw", round=1)
    bench.fleet.link_lost("a", bench.send)
    bench.tick(20.0)
    bench.tick(21.0)
    bench.come("a")
    bench.report("a", 1.0)
    assert bench.rounds.receipts == {} and ("a", "Refusal") in bench.said


def test_a_device_at_work_for_a_dead_server_joins_when_it_is_done() -> None:
    """An update offered after a restart counts, even if the device's Hello came late and named no update."""
    store = new_store()
    FakeFleet(store=store).come("a", "b")
    after = FakeFleet(store=store, resume_s=3.0, goal=1.0)
    after.come("b")
    after.tick(3.0)
    assert after.sync.cohort.selected == ["b"]
    after.come("a")
    after.report("a", 1.0)
    after.report("b", 3.0)
    after.tick(4.0)
    assert [(r.selected, r.reported) for r in after.records] == [(2, 2)]


def test_an_offer_coded_otherwise_gets_no_slot_of_another() -> None:
    """After a restart with another encoding, a device's new offer does not take over the chunks of its former one."""
    bench = FakeFleet(devices=2)
    bench.come("a", "b")
    crc32 = bench.begin("a", 1.0)
    bench.chunks("a", 1.0, 0, 1)
    bench.hear(
        "a", "UpdateBegin", round=1, base_version=1, crc32=crc32, elements=ELEMENTS, chunk_elements=CHUNK,
        examples=1, steps=1, planned_steps=1, encoding=2,
    )  # fmt: skip
    slot = bench.fleet.uploads.slots.by_device["a"]
    assert slot is not None and slot.missing == 3 and slot.update.encoding == 2


def test_begin_and_end_again_count_once() -> None:
    """Repeated UpdateBegin and UpdateEnd are each answered with a receipt, before and after the fold."""
    bench = FakeFleet(devices=2)
    bench.come("a", "b")
    for _ in range(3):
        bench.report("a", 1.0)
    assert bench.rounds.record.reported == 1
    assert bench.said.count(("a", "Receipt")) == 1 + 2 * 2
    bench.report("b", 3.0)
    bench.tick(1.0)
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 2, np.float32))
    bench.begin("a", 1.0)
    assert bench.said[-1] == ("a", "Commit")


def test_deadlines_and_an_upload_cut_off() -> None:
    """The soft deadline sends the closing notice once. The hard deadline folds the chunks that have arrived."""
    bench = FakeFleet(devices=2, goal=1.0)
    bench.come("a", "b")
    bench.report("a", 1.0)
    bench.begin("b", 3.0)
    bench.chunks("b", 3.0, 1)
    bench.tick(9.999)
    assert bench.state() is State.TRAINING
    bench.tick(10.0)
    bench.tick(19.999)
    assert bench.state() is State.CLOSING and bench.said.count(("all", "ClosingNotice")) == 1
    assert bench.records == []
    bench.tick(20.0)
    assert [(r.reported, r.partial) for r in bench.records] == [(2, 1)]
    wanted = np.ones(ELEMENTS, np.float32)
    wanted[CHUNK : 2 * CHUNK] = 2
    assert np.array_equal(bench.rounds.model, wanted)


def test_the_goal_brings_the_closing_notice() -> None:
    """Four of five reports at a goal of 0.8 send the closing notice, also to later Hellos. Withdraw ends the wait."""
    bench = FakeFleet(devices=5, goal=0.8)
    bench.come("a", "b", "c", "d", "e")
    for device in "abc":
        bench.report(device, 1.0)
    bench.tick(1.0)
    assert bench.state() is State.TRAINING
    bench.report("d", 1.0)
    bench.tick(2.0)
    assert bench.state() is State.CLOSING
    bench.come("e")
    assert bench.said[-3:] == [("e", "Welcome"), ("e", "Plan"), ("e", "ClosingNotice")]
    bench.hear("e", "Withdraw", round=1)
    bench.tick(3.0)
    assert [(r.reported, r.withdrawn) for r in bench.records] == [(4, 1)]


def test_selection() -> None:
    """A share or a number of the online devices is selected, the same for the same seed; the others are refused."""
    drawn = []
    for select in (0.5, 3.0, 3.0):
        bench = FakeFleet(devices=6, select=select)
        bench.come("a", "b", "c", "d", "e")
        assert bench.state() is State.SELECTING
        bench.come("f")
        assert len(bench.sync.cohort.selected) == 3 and bench.sync.cohort.planned == bench.sync.cohort.selected
        drawn.append(bench.sync.cohort.selected)
        other = next(d for d in "abcdef" if d not in bench.sync.cohort.selected)
        bench.begin(other, 9.0)
        assert bench.rounds.receipts == {} and bench.said[-1] == (other, "Refusal")
    assert drawn[0] == drawn[1] == drawn[2]


def test_the_last_round_was_committed_before_the_start() -> None:
    """After a crash behind the last commit, the server does not start another round."""
    store = new_store()
    store.commit(1, np.ones(ELEMENTS, np.float32), {})
    for last, done in ((1, True), (2, False), (None, False)):
        setup = RoundSetup(FedAvg(), Training(), Policy(), last_round=last)
        outlets = Outlets(lambda message: None, lambda version, chunks: None)
        rounds, _ = start_rounds(Fleet(LAYOUT), store, setup, outlets)
        assert rounds.done is done


def test_a_free_slot_goes_to_who_waits() -> None:
    """A waiting device is told as soon as a slot is free, and a device that left is skipped."""
    bench = FakeFleet(slots=1, devices=4, goal=1.0)
    bench.come("a", "b", "c", "d")
    for device in "abc":
        bench.begin(device, 1.0)
    assert [s.update.device for s in bench.fleet.uploads.slots.in_flight()] == ["a"] and list(
        bench.fleet.uploads.waiting
    ) == ["b", "c"]
    bench.fleet.link_lost("b", bench.send)
    bench.report("a", 1.0)
    assert bench.said[-1] == ("c", "UpdateStatus") and [
        s.update.device for s in bench.fleet.uploads.slots.in_flight()
    ] == ["c"]
    bench.hear("c", "Withdraw", round=1)
    assert bench.fleet.uploads.slots.in_flight() == [] and not bench.fleet.uploads.waiting


def test_an_upload_cut_off_when_whole_must_match_its_checksum() -> None:
    """If all chunks but no UpdateEnd arrived, the update counts in full if its checksum matches, else not at all."""
    for value, reported in ((3.0, 2), (4.0, 1)):
        bench = FakeFleet(devices=2, goal=1.0, partial=False)
        bench.come("a", "b")
        bench.report("a", 1.0)
        bench.begin("b", 3.0)
        bench.chunks("b", value, 0, 1, 2)
        bench.tick(20.0)
        assert [(r.reported, r.partial) for r in bench.records] == [(reported, 0)]


def test_a_round_opened_again_keeps_uploads_in_flight() -> None:
    """With too few reports, the chunks of an upload are kept, and its end may arrive after the deadline."""
    bench = FakeFleet(devices=3, goal=1.0, min_reports=3)
    bench.come("a", "b", "c")
    bench.report("a", 1.0)
    crc32 = bench.begin("b", 3.0)
    bench.chunks("b", 3.0, 0)
    bench.tick(20.0)
    assert bench.state() is State.SELECTING and set(bench.rounds.receipts) == {"a"}
    bench.tick(21.0)
    bench.chunks("b", 3.0, 1, 2)
    bench.hear("b", "UpdateEnd", round=1, chunks=3, crc32=crc32)
    bench.report("c", 5.0)
    bench.tick(22.0)
    assert [(r.reported, r.partial) for r in bench.records] == [(3, 0)]
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 3, np.float32))


def test_another_link_cannot_speak_for_a_device() -> None:
    """From another link, neither Hello nor chunks count, and the device cannot be reported as lost."""
    bench = FakeFleet(devices=2, goal=1.0)
    bench.come("a", "b")
    bench.begin("a", 1.0)
    answers: list[str] = []

    def other(device: str, message: bytes) -> None:
        body = codec.decode(message)
        assert body is not None
        answers.append(type(body).__name__)

    hello = codec.encode("Hello", device_id="a", elements=ELEMENTS, layout_crc32=LAYOUT.crc32)
    bench.fleet.receive("a", hello, 1.0, other)
    bench.fleet.receive("a", codec.encode("Withdraw", round=1), 1.0, other)
    bench.fleet.link_lost("a", other)
    assert answers == ["Refusal"] and bench.fleet.sessions["a"].online and bench.sync.cohort.withdrawn == set()
    for name in ("", "a b", "x" * 64, ".."):
        bench.fleet.receive(name, codec.encode("Hello", device_id=name or "x"), 1.0, bench.send)
    assert set(bench.fleet.sessions.by_device) == {"a", "b"}


def test_a_hello_said_again_is_no_loss() -> None:
    """A repeated Hello is no loss: Welcome was late. Only a Hello of another connection shows an unnoticed loss."""
    bench = FakeFleet(devices=2)
    bench.come("b")
    for boot, dropped in ((7, set()), (7, set()), (8, {"a"})):
        bench.hear("a", "Hello", device_id="a", boot=boot, elements=ELEMENTS, layout_crc32=LAYOUT.crc32)
        bench.tick(1.0)
        assert bench.state() is State.TRAINING and bench.sync.cohort.dropped == dropped


def test_too_few_devices_are_called_again() -> None:
    """A device that missed the new server's call sends nothing by itself, so the call is repeated, but not often."""
    policies: tuple[dict[str, Any], ...] = ({}, {"buffer": 2})
    for policy in policies:
        bench = FakeFleet(devices=2, **policy)
        bench.come("a")
        for second in range(600):
            bench.tick(float(second))
        assert 10 <= bench.said.count(("all", "Refusal")) <= 14
        bench.come("b")
        before = len(bench.said)
        bench.tick(601.0)
        bench.tick(700.0)
        assert ("all", "Refusal") not in bench.said[before:]


def test_a_padded_message_is_not_kept() -> None:
    """A valid offer with 130,000 extra bytes is not kept: the memory for waiting offers stays small."""
    bench = FakeFleet(slots=1)
    bench.come("a", "b")
    bench.begin("a", 1.0)
    offer = codec.encode(
        "UpdateBegin", round=1, base_version=1, crc32=7, elements=ELEMENTS, chunk_elements=CHUNK, examples=1, steps=1,
        planned_steps=1,
    )  # fmt: skip
    bench.fleet.receive("b", offer + bytes(120_000), 0.0, bench.send)
    assert bench.fleet.uploads.waiting == {} and bench.fleet.counters["malformed"] == 1
    bench.fleet.receive("b", offer, 0.0, bench.send)
    assert list(bench.fleet.uploads.waiting) == ["b"]


def test_who_withdrew_and_offers_after_all_is_heard() -> None:
    """A Withdraw names only the round, so a later offer of the same device still counts."""
    bench = FakeFleet(devices=2)
    bench.come("a", "b")
    bench.hear("a", "Withdraw", round=1)
    bench.report("a", 3.0)
    bench.report("b", 5.0)
    bench.tick(1.0)
    assert [(r.selected, r.reported, r.withdrawn) for r in bench.records] == [(2, 2, 0)]
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 4, np.float32))
    bench.tick(1.0)
    bench.report("a", float("nan"), round=2)
    bench.report("a", 3.0, round=2)
    assert bench.said.count(("a", "Refusal")) == 2 and bench.rounds.receipts == {}
