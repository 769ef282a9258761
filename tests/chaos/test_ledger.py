# SPDX-License-Identifier: Apache-2.0
"""The chaos run's judge: each fault of the account is found, and what is no fault is not."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ledger import CHUNK, ELEMENTS, Commit, Fold, Ledger, examples, growth, judge, weights

CHUNKS = -(-ELEMENTS // CHUNK)
WHOLE = "1" * CHUNKS


def fold(index: int, round: int, chunks: str = WHOLE) -> Fold:
    return Fold(f"d{index}", zlib.crc32(weights(round, index).tobytes()), chunks)


def commit(round: int, *folds: Fold, at: float | None = None) -> Commit:
    total, weight = np.zeros(ELEMENTS), np.zeros(ELEMENTS)
    for one in folds:
        covered = np.repeat([c == "1" for c in one.chunks], CHUNK)[:ELEMENTS]
        total += covered * examples(int(one.device[1:])) * weights(round, int(one.device[1:])).astype(np.float64)
        weight += covered * examples(int(one.device[1:]))
    model = (total / np.where(weight, weight, 1)).astype("<f4")
    return Commit(round, 10.0 * round if at is None else at, folds, zlib.crc32(model.tobytes()))


def ledger(*commits: Commit, **pages: Any) -> Ledger:
    last = {c.round: c for c in commits}
    records = [{"round": number, "reported": len(c.folds)} for number, c in sorted(last.items())]
    trained = [(f.device, c.round, c.at - 5) for c in last.values() for f in c.folds]
    return Ledger(records, list(commits), **({"trained": trained} | pages))


EXACT = (commit(1, fold(0, 1), fold(1, 1)), commit(2, fold(0, 2), fold(2, 2, "1" * (CHUNKS - 1) + "0"), fold(1, 2)))


def test_an_exact_ledger() -> None:
    verdict = judge(ledger(*EXACT, receipts=[("d0", 1, 6.0), ("d1", 1, 7.0)]))
    assert verdict.errors == [] and (verdict.rounds, verdict.folded, verdict.partial) == (2, 5, 1)
    assert verdict.longest_gap_s == 10.0


def test_the_last_one_written_of_a_round_counts() -> None:
    """A server died between writing it down and the commit, and the next one made it of others."""
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
    assert any("never trained" in error for error in judge(ledger(*EXACT, trained=[])).errors)
    short = ledger(*EXACT)
    short.records[1]["reported"] = 2
    assert any("the log says 2" in error for error in judge(short).errors)
    short.commits.pop()
    assert any("nobody wrote down" in error for error in judge(short).errors)


def test_a_receipt_that_came_to_nothing() -> None:
    """Only a server that ended between the receipt and the commit explains it."""
    receipt = [("d5", 2, 15.0)]
    assert any("d5 had a receipt" in error for error in judge(ledger(*EXACT, receipts=receipt)).errors)
    assert any("d5" in error for error in judge(ledger(*EXACT, receipts=receipt, ends=[14.0, 21.0])).errors)
    explained = judge(ledger(*EXACT, receipts=receipt, ends=[16.0]))
    assert explained.errors == [] and explained.died_with_server == 1
    assert judge(ledger(*EXACT, receipts=[("d5", 3, 25.0)])).errors == []  # that round is not over


def test_growth_is_seen() -> None:
    """Of the last third's mean over the first third's."""
    flat = [(float(t), 100.0 + t % 3) for t in range(90)]
    assert abs(growth(flat)) < 0.01
    leak = [(float(t), 100.0 + 0.15 * t) for t in range(90)]
    assert growth(leak) > 0.05
