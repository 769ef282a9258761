# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rounds without I/O: staleness, discounts, restarts, and the messages to each device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_fleet import CHUNK, ELEMENTS, LAYOUT, FakeFleet, new_store

from fedmote.rounds.record import Record
from fedmote.store.store import Store


def buffered(buffer: int = 2, store: Store | None = None, slots: int = 64, **policy: Any) -> FakeFleet:
    return FakeFleet(slots, store, **({"buffer": buffer, "max_staleness": 2} | policy))


def said(bench: FakeFleet, device: str) -> list[str]:
    return [name for to, name in bench.said if to == device]


def commit(bench: FakeFleet, round: int, value: float, *devices: str) -> None:
    """Have devices report for their plan of `round`, which commits the next model."""
    for device in devices:
        bench.report(device, value, round=round)
    bench.tick(bench.now)
    assert bench.rounds.number == round + 1


def test_a_full_buffer_makes_a_model_and_whom_it_holds_is_told() -> None:
    """A full buffer commits a model. Devices in it are told and get a new plan; a device still training is not
    disturbed.
    """
    bench = buffered(2)
    bench.come("a", "b", "c")
    assert [said(bench, d) for d in "abc"] == [["Welcome", "Plan"]] * 3
    commit(bench, 1, 4.0, "a", "b")
    assert said(bench, "a") == said(bench, "b") == ["Welcome", "Plan", "Receipt", "Commit", "Plan"]
    assert said(bench, "c") == ["Welcome", "Plan"] and said(bench, "all") == ["Refusal"]
    assert [(r.round, r.selected, r.reported, r.staleness) for r in bench.records] == [(1, 3, 2, 0.0)]
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 4, np.float32))


@pytest.mark.parametrize("delta", [False, True])
def test_an_old_update_is_followed_less(delta: bool) -> None:
    """A stale update is discounted as in FedBuff: x + sum(n s(t) (w - x_old)) / sum(n), s(t) = (1 + t) ** -a."""
    bench = buffered(2, staleness_exponent=1.0)
    bench.come("a", "b", "c")
    commit(bench, 1, 4.0, "a", "b")
    bench.report("c", 6.0, examples=3, delta=delta)  # both forms are 6 from the model of zeros
    bench.report("a", 5.0, examples=1, round=2)
    bench.tick(0.0)
    expected = 4.0 + (3 * 0.5 * 6.0 + 1 * 1.0 * (5.0 - 4.0)) / (3 + 1)
    assert np.allclose(bench.rounds.model, expected, rtol=1e-6)
    assert bench.records[1].staleness == 0.5 and bench.records[1].examples == 4


def test_a_model_stays_as_long_as_somebody_starts_from_it() -> None:
    """A model is kept while a device still works from it, and its chunks are served on request."""
    bench = buffered(1, select=2.0)
    bench.come("a", "b")
    commit(bench, 1, 1.0, "a")
    assert bench.published == {1, 2} and bench.rounds.model_chunk(1, 0) is not None
    bench.report("b", 1.0)
    bench.tick(0.0)
    assert bench.published == {2, 3} and bench.rounds.model_chunk(1, 0) is None


def test_what_is_too_old_is_let_go() -> None:
    """An update that is too old is dropped. The device is told and gets a new plan with a newer model."""
    bench = buffered(1)
    bench.come("a", "b")
    for round in (1, 2, 3):
        assert bench.rounds.open_round("b") == 1
        commit(bench, round, float(round), "a")
    assert bench.rounds.open_round("b") == 4
    assert said(bench, "b") == ["Welcome", "Plan", "Refusal", "Plan"]
    before = bench.rounds.model.copy()
    bench.report("b", 99.0, round=1)
    bench.tick(0.0)
    assert bench.rounds.number == 4 and np.array_equal(bench.rounds.model, before)


def test_an_upload_that_grows_too_old_counts_for_what_came() -> None:
    """An upload that becomes too old counts with the chunks that arrived: two of three, discounted. The rest of the
    model does not change.
    """
    bench = buffered(1, max_staleness=1, staleness_exponent=1.0)
    bench.come("a", "b")
    bench.begin("b", 10.0)
    bench.chunks("b", 10.0, 0, 1)
    commit(bench, 1, 2.0, "a")
    commit(bench, 2, 3.0, "a")
    expected = np.full(ELEMENTS, 3.0)
    expected[: 2 * CHUNK] = 2.0 + (0.5 * 10.0 + 1.0 * (3.0 - 2.0)) / 2
    assert np.allclose(bench.rounds.model, expected, rtol=1e-6)
    assert bench.records[1].partial == 1 and bench.records[1].reported == 2


def test_fewer_than_the_buffer_make_a_model_when_nobody_else_is_there() -> None:
    """A round commits with fewer updates than the buffer holds if no other device is online: two devices do not wait
    for five.
    """
    bench = buffered(5)
    bench.come("a", "b")
    bench.report("a", 2.0)
    bench.tick(0.0)
    assert bench.records == []
    bench.report("b", 4.0)
    bench.tick(0.0)
    assert [r.reported for r in bench.records] == [2]
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 3, np.float32))


def test_who_is_overdue_loses_its_place_but_not_its_work() -> None:
    """An overdue device loses its slot but not its update. One device may train at a time; after its deadline another
    is asked, and both updates count.
    """
    bench = buffered(2, select=1.0001, hard_deadline_s=20.0)
    bench.come("a", "b", "c")
    first = next(d for d in "abc" if "Plan" in said(bench, d))
    bench.tick(19.0)
    assert sum("Plan" in said(bench, d) for d in "abc") == 1
    bench.tick(20.0)
    second = next(d for d in "abc" if d != first and "Plan" in said(bench, d))
    bench.report(second, 1.0)
    bench.report(first, 3.0)
    bench.tick(21.0)
    assert [r.reported for r in bench.records] == [2]
    assert np.array_equal(bench.rounds.model, np.full(ELEMENTS, 2, np.float32))


def test_who_withdraws_is_not_asked_again_in_the_round() -> None:
    bench = buffered(2)
    bench.come("a", "b", "c")
    bench.hear("a", "Withdraw", round=1)
    bench.tick(1.0)
    assert said(bench, "a") == ["Welcome", "Plan"] and bench.rounds.record.withdrawn == 0
    commit(bench, 1, 1.0, "b", "c")
    assert said(bench, "a") == ["Welcome", "Plan", "Plan"] and bench.records[0].withdrawn == 1


def test_a_restart_asks_again_for_what_was_not_committed_only() -> None:
    """After a restart, only updates that were not committed are requested again. An update lost with the server is sent
    again and counted once.
    """
    store = new_store()
    before = buffered(2, store)
    before.come("a", "b", "c")
    commit(before, 1, 1.0, "a", "b")
    before.report("c", 7.0)  # in the buffer of the server that is about to crash
    after = buffered(2, store)
    assert after.published == {1, 2}
    after.come("b", "c")
    assert after.rounds.open_round("c") == 1 and after.rounds.open_round("b") == 2
    after.report("c", 7.0)
    after.report("c", 7.0)
    after.report("b", 1.0, round=2)
    after.tick(0.0)
    assert [(r.round, r.reported) for r in after.records] == [(2, 2)]
    assert np.allclose(after.rounds.model, 1.0 + 2**-0.5 * 7.0 / 2, rtol=1e-6)


def test_what_a_model_holds_is_durable_with_it() -> None:
    """The devices counted in a model are saved with it: after a crash right behind a commit they are told, and not
    counted again.
    """

    class Dies(Exception):
        pass

    def die(record: Record) -> None:
        raise Dies

    store = new_store()
    before = buffered(2, store)
    before.come("a", "b")
    before.report("a", 1.0)
    before.report("b", 1.0)
    before.rounds.outlets = replace(before.rounds.outlets, on_commit=die)
    with pytest.raises(Dies):
        before.tick(0.0)
    after = buffered(2, store)
    after.hear("a", "Hello", device_id="a", elements=ELEMENTS, layout_crc32=LAYOUT.crc32, held_round=1)
    after.report("a", 1.0)
    assert said(after, "a") == ["Welcome", "Commit", "Commit"] and after.rounds.receipts == {}
    after.tick(0.0)
    assert said(after, "a")[3:] == ["Plan"] and after.rounds.open_round("a") == 2


def test_a_server_starts_when_it_is_to_wait_for_work_longer_than_it_kept_models_for() -> None:
    store = new_store()
    bench = FakeFleet(store=store, buffer=1, max_staleness=2, soft_deadline_s=1.0, hard_deadline_s=1.0)
    bench.come("a", "gone")
    bench.hear("gone", "DeviceState", online=False)
    for number in range(1, 21):
        bench.tick(2.0 * number)
        bench.report("a", 1.0, round=number)
    bench.tick(50.0)
    assert bench.rounds.number == 21
    assert ("gone", 1) in store.assignments.open_since(0)
    restarted = FakeFleet(store=store, buffer=1, max_staleness=100)
    restarted.come("gone", held_round=1)
    restarted.said.clear()
    restarted.report("gone", 1.0, round=1)
    assert ("gone", "Refusal") in restarted.said
    restarted.tick(60.0)
    assert restarted.rounds.number == 21


@pytest.mark.parametrize("devices", [10, 2000])
def test_what_a_message_costs_does_not_grow_with_the_fleet(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = buffered(buffer=100, soft_deadline_s=100.0, hard_deadline_s=100.0)
    names = [f"d{i}" for i in range(devices)]
    for name in names:
        bench.hear(name, "Hello", device_id=name, elements=ELEMENTS, layout_crc32=LAYOUT.crc32)
    bench.tick(0.0)
    assert len(bench.buffered.open_work.by_device) == devices
    lists = 0
    ready = bench.fleet.sessions.ready

    def counted() -> list[str]:
        nonlocal lists
        lists += 1
        return ready()

    monkeypatch.setattr(bench.fleet.sessions, "ready", counted)
    for step in range(5):
        bench.report(names[step], 1.0)
        bench.tick(0.2 + 0.001 * step)
    assert lists == (5 if devices == 10 else 1)
    bench.come("new")
    bench.tick(1.0)
    assert "new" in bench.buffered.open_work.by_device


def test_who_is_overdue_is_no_longer_at_work_and_who_ends_is_neither() -> None:
    bench = buffered(buffer=9, select=2, soft_deadline_s=10.0, hard_deadline_s=20.0)
    bench.come("a", "b")
    assert bench.buffered.open_work.working == {"a", "b"}
    bench.report("a", 1.0)
    bench.come("c", "d")
    assert bench.buffered.open_work.working == {"b", "c"} or bench.buffered.open_work.working == {"b", "d"}
    bench.tick(5.0)
    bench.tick(20.0)
    assert "b" not in bench.buffered.open_work.working
    assert "b" in bench.buffered.open_work.by_device
    bench.report("b", 1.0)
    assert "b" not in bench.buffered.open_work.by_device
    bench.tick(41.0)
    assert bench.buffered.open_work.working <= bench.buffered.open_work.by_device.keys()
