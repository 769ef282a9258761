# SPDX-License-Identifier: Apache-2.0
"""Compares the accounts of both sides, update by update. No I/O, no clock."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ELEMENTS, CHUNK = 240, 128


def examples(index: int) -> int:
    """Return how many examples device `index` reports."""
    return 10 + 7 * index


def weights(round: int, index: int) -> NDArray[np.float32]:
    """Return the update of device `index` for `round`, independent of the model. Sums of them are exact in float64."""
    numbers = np.random.default_rng([round, index]).integers(-(2**20), 2**20, ELEMENTS)
    return (numbers / 1024).astype(np.float32)


def index_of(device: str) -> int:
    """Return the number in a device's name."""
    return int(device.removeprefix("d"))


@dataclass(frozen=True)
class Fold:
    """One update as folded by a server process. chunks: one character for each, 1 for those that had arrived."""

    server: int
    round: int
    device: str
    crc32: int
    chunks: str


@dataclass(frozen=True)
class Commit:
    """A server process's entry just before it made a round's model durable, at `at` seconds."""

    server: int
    round: int
    at: float
    folds: tuple[Fold, ...]
    model_crc32: int


@dataclass
class Ledger:
    """The accounts of both sides.

    records: the database's log of rounds. folds: as they were done, also by servers that died before the commit.
    commits: in the order in which they were written; of a round that a dying server did not get committed there may be
    more than one, of which the last one counts. trained: CRC-32 of what a device made, by (device, round). receipts:
    (device, round). committed: (device, round) of devices that had a receipt and then heard that the round is over.
    began_at, ended_at: seconds, of the run.
    """

    records: list[dict[str, Any]]
    folds: list[Fold]
    commits: list[Commit]
    trained: dict[tuple[str, int], int] = field(default_factory=dict)
    receipts: list[tuple[str, int]] = field(default_factory=list)
    committed: list[tuple[str, int]] = field(default_factory=list)
    began_at: float = math.inf
    ended_at: float = -math.inf


@dataclass
class Verdict:
    """errors: what does not fit, in words; empty when the ledger is exact.

    confirmed: updates folded into committed models whose device had the receipt and heard of the commit.
    died_with_server: receipts of a server that died before its commit, where the device had not come back when another
    server committed the round. It was told that the round is over, and nothing of its work was counted.
    """

    errors: list[str] = field(default_factory=list)
    rounds: int = 0
    folded: int = 0
    partial: int = 0
    confirmed: int = 0
    died_with_server: int = 0
    longest_gap_s: float = 0.0  # without a commit


def judge(ledger: Ledger) -> Verdict:
    """Compare the accounts."""
    verdict = Verdict(rounds=len(ledger.records))
    numbers = [record["round"] for record in ledger.records]
    if numbers != list(range(1, len(numbers) + 1)):
        verdict.errors.append(f"the log has rounds {numbers}")
    last = {commit.round: commit for commit in ledger.commits}
    for record in ledger.records:
        commit = last.get(record["round"])
        if commit is None:
            verdict.errors.append(f"round {record['round']}: committed, but nobody wrote down of what")
        else:
            _judge_round(verdict, record, commit, ledger.trained)
    counted = {(fold.device, number) for number in numbers if number in last for fold in last[number].folds}
    _judge_devices(verdict, ledger, {number: last[number].server for number in numbers if number in last}, counted)
    times = sorted([last[number].at for number in numbers if number in last] + [ledger.began_at, ledger.ended_at])
    times = [at for at in times if math.isfinite(at)]
    verdict.longest_gap_s = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
    return verdict


def _judge_devices(verdict: Verdict, ledger: Ledger, committers: dict[int, int], counted: set[tuple[str, int]]) -> None:
    folders: dict[tuple[str, int], set[int]] = {}
    for fold in ledger.folds:
        folders.setdefault((fold.device, fold.round), set()).add(fold.server)
    for device, round in sorted(set(ledger.receipts)):
        by = folders.get((device, round), set())
        if not by:
            verdict.errors.append(f"round {round}: {device} had a receipt, and no server folded its update")
        elif round in committers and (device, round) not in counted:
            if committers[round] in by:
                verdict.errors.append(f"round {round}: {device} had a receipt, and the model does not hold its update")
            else:
                verdict.died_with_server += 1
    for device, round in sorted(set(ledger.committed)):
        if round not in committers:
            verdict.errors.append(f"round {round}: {device} heard of a commit, and the database has none")
    verdict.confirmed = len(counted & set(ledger.committed))


def _judge_round(verdict: Verdict, record: dict[str, Any], commit: Commit, trained: dict[tuple[str, int], int]) -> None:
    where = f"round {commit.round}"
    for device, count in Counter(fold.device for fold in commit.folds).items():
        if count > 1:
            verdict.errors.append(f"{where}: {device} was folded {count} times")
        if (device, commit.round) not in trained:
            verdict.errors.append(f"{where}: {device} was folded, but never trained for it")
    if record["reported"] != len(commit.folds):
        verdict.errors.append(f"{where}: the log says {record['reported']} reports, {len(commit.folds)} were folded")
    total, weight = np.zeros(ELEMENTS), np.zeros(ELEMENTS)
    for fold in commit.folds:
        index = index_of(fold.device)
        if "0" not in fold.chunks and fold.crc32 != trained.get((fold.device, commit.round)):
            verdict.errors.append(f"{where}: {fold.device}'s update is not the one that it made")
        covered = np.repeat(np.array([chunk == "1" for chunk in fold.chunks]), CHUNK)[:ELEMENTS]
        total += examples(index) * covered * weights(commit.round, index).astype(np.float64)
        weight += examples(index) * covered
        verdict.folded += 1
        verdict.partial += not covered.all()
    if (weight > 0).all():
        model = (total / weight).astype("<f4")
        if zlib.crc32(model.tobytes()) != commit.model_crc32:
            verdict.errors.append(f"{where}: the model is not the mean of those who were folded")
