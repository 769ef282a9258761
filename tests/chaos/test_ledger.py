# SPDX-License-Identifier: Apache-2.0
"""The ledger check of the chaos run finds each error and reports nothing else."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ledger import CHUNK, ELEMENTS, Commit, Fold, Ledger, examples, judge, weights

CHUNKS = -(-ELEMENTS // CHUNK)
WHOLE = "1" * CHUNKS


def fold(index: int, round: int, chunks: str = WHOLE, server: int = 1) -> Fold:
    return Fold(server, round, f"d{index}", zlib.crc32(weights(round, index).tobytes()), chunks)


def commit(round: int, *folds: Fold, server: int = 1) -> Commit:
    total, weight = np.zeros(ELEMENTS), np.zeros(ELEMENTS)
    for one in folds:
        covered = np.repeat([c == "1" for c in one.chunks], CHUNK)[:ELEMENTS]
        total += covered * examples(int(one.device[1:])) * weights(round, int(one.device[1:])).astype(np.float64)
        weight += covered * examples(int(one.device[1:]))
    model = (total / np.where(weight, weight, 1)).astype("<f4")
    return Commit(server, round, 10.0 * round, folds, zlib.crc32(model.tobytes()))


def ledger(*commits: Commit, **pages: Any) -> Ledger:
    last = {c.round: c for c in commits}
    records = [{"round": number, "reported": len(c.folds)} for number, c in sorted(last.items())]
    folds = [f for c in commits for f in c.folds]
    trained = {(f.device, f.round): zlib.crc32(weights(f.round, int(f.device[1:])).tobytes()) for f in folds}
    parts: dict[str, Any] = {"folds": folds, "commits": list(commits), "trained": trained} | pages
    return Ledger(records, **parts)


EXACT = (commit(1, fold(0, 1), fold(1, 1)), commit(2, fold(0, 2), fold(2, 2, "1" * (CHUNKS - 1) + "0"), fold(1, 2)))


def test_an_exact_ledger() -> None:
    verdict = judge(ledger(*EXACT, receipts=[("d0", 1), ("d1", 1)], committed=[("d0", 1)]))
    assert verdict.errors == [] and (verdict.rounds, verdict.folded, verdict.partial) == (2, 5, 1)
    assert verdict.confirmed == 1 and verdict.longest_gap_s == 10.0


def test_a_gap_is_also_one_before_the_first_commit_and_after_the_last() -> None:
    assert judge(ledger(*EXACT, began_at=-5.0, ended_at=21.0)).longest_gap_s == 15.0
    assert judge(ledger(*EXACT, began_at=9.0, ended_at=60.0)).longest_gap_s == 40.0
    assert judge(ledger(began_at=9.0, ended_at=60.0)).longest_gap_s == 51.0


def test_the_last_one_written_of_a_round_counts() -> None:
    """The last entry of a round counts: a server may be killed between its entry and the commit."""
    assert judge(ledger(commit(1, fold(3, 1)), *EXACT)).errors == []


@pytest.mark.parametrize(
    ("commits", "what"),
    [
        ((commit(1, fold(0, 1), fold(0, 1)),), "folded 2 times"),
        ((replace(commit(1, fold(0, 1), fold(1, 1)), folds=(fold(0, 1),)),), "not the mean"),
        ((replace(commit(1, fold(0, 1)), folds=(fold(0, 1), fold(1, 1))),), "not the mean"),
        ((commit(1, replace(fold(0, 1), crc32=7)),), "not the one that it made"),
        ((commit(1, fold(0, 1)), commit(3, fold(0, 3))), "the log has rounds"),
    ],
)
def test_what_the_server_did_wrong(commits: tuple[Commit, ...], what: str) -> None:
    assert any(what in error for error in judge(ledger(*commits)).errors)


def test_what_the_accounts_do_not_share() -> None:
    assert any("never trained" in error for error in judge(ledger(*EXACT, trained={})).errors)
    short = ledger(*EXACT)
    short.records[1]["reported"] = 2
    assert any("the log says 2" in error for error in judge(short).errors)
    short.commits.pop()
    assert any("nobody wrote down" in error for error in judge(short).errors)


def test_a_receipt_that_came_to_nothing() -> None:
    """A receipt without a counted update is an error, unless its server died before the commit."""
    receipts = [("d5", 2)]
    assert any("no server folded" in error for error in judge(ledger(*EXACT, receipts=receipts)).errors)
    for server, lost in ((1, True), (7, False)):
        account = ledger(*EXACT, receipts=receipts)
        account.folds.append(fold(5, 2, server=server))
        verdict = judge(account)
        assert any("d5 had a receipt, and the model" in error for error in verdict.errors) == lost
        assert verdict.died_with_server == (not lost) and len(verdict.errors) == lost
    running = ledger(*EXACT, receipts=[("d5", 3)])
    running.folds.append(fold(5, 3))
    assert judge(running).errors == []  # that round is not over


def test_a_commit_that_nobody_made() -> None:
    assert any("d0 heard of a commit" in error for error in judge(ledger(*EXACT, committed=[("d0", 3)])).errors)
