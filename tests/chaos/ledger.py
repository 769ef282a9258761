# SPDX-License-Identifier: Apache-2.0
"""What both sides wrote down, and whether it fits together to the last update. Pure: no I/O, no clock."""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ELEMENTS, CHUNK = 240, 64


def examples(index: int) -> int:
    """What device `index` says it has."""
    return 10 + 7 * index


def weights(round: int, index: int) -> NDArray[np.float32]:
    """What device `index` makes of round `round`, whatever the model was. Sums of them are exact in float64."""
    numbers = np.random.default_rng([round, index]).integers(-(2**20), 2**20, ELEMENTS)
    return (numbers / 1024).astype(np.float32)


def index_of(device: str) -> int:
    """Number of a device's name."""
    return int(device.removeprefix("d"))


@dataclass(frozen=True)
class Fold:
    """One update as the server folded it. chunks: one character for each, 1 for those that had come."""

    device: str
    crc32: int
    chunks: str


@dataclass(frozen=True)
class Commit:
    """What the server wrote down just before it made a round's model durable, at `at` seconds."""

    round: int
    at: float
    folds: tuple[Fold, ...]
    model_crc32: int


@dataclass
class Ledger:
    """Both sides' account.

    records: the database's log of rounds. commits: in the order in which they were written; of a round that a dying
    server did not get committed there may be more than one, of which the last one counts. trained, receipts: (device,
    round, at). ends: when a server process ended.
    """

    records: list[dict[str, Any]]
    commits: list[Commit]
    trained: list[tuple[str, int, float]] = field(default_factory=list)
    receipts: list[tuple[str, int, float]] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


@dataclass
class Verdict:
    """errors: what does not fit, in words; empty when the ledger is exact."""

    errors: list[str] = field(default_factory=list)
    rounds: int = 0
    folded: int = 0
    partial: int = 0
    died_with_server: int = 0  # had a receipt of a server that ended before the commit, and were away until then
    longest_gap_s: float = 0.0


def judge(ledger: Ledger) -> Verdict:
    """Compare the accounts."""
    verdict = Verdict(rounds=len(ledger.records))
    numbers = [record["round"] for record in ledger.records]
    if numbers != list(range(1, len(numbers) + 1)):
        verdict.errors.append(f"the log has rounds {numbers}")
    last = {commit.round: commit for commit in ledger.commits}
    trained = {(device, round) for device, round, _ in ledger.trained}
    for record in ledger.records:
        commit = last.get(record["round"])
        if commit is None:
            verdict.errors.append(f"round {record['round']}: committed, but nobody wrote down of what")
            continue
        _judge_round(verdict, record, commit, trained)
    for device, round, at in ledger.receipts:
        commit = last.get(round)
        if commit is None or round > len(numbers) or device in {fold.device for fold in commit.folds}:
            continue
        ends = sorted(ledger.ends)
        at_end = bisect.bisect_left(ends, at)
        if at_end < len(ends) and ends[at_end] <= commit.at:
            verdict.died_with_server += 1
        else:
            verdict.errors.append(f"round {round}: {device} had a receipt, and the model does not hold its update")
    times = [last[number].at for number in numbers if number in last]
    verdict.longest_gap_s = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
    return verdict


def _judge_round(verdict: Verdict, record: dict[str, Any], commit: Commit, trained: set[tuple[str, int]]) -> None:
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
        update = weights(commit.round, index)
        if fold.crc32 != zlib.crc32(update.tobytes()) and "0" not in fold.chunks:
            verdict.errors.append(f"{where}: {fold.device}'s update is not the one that it made")
        covered = np.repeat(np.array([chunk == "1" for chunk in fold.chunks]), CHUNK)[:ELEMENTS]
        total += examples(index) * covered * update.astype(np.float64)
        weight += examples(index) * covered
        verdict.folded += 1
        verdict.partial += not covered.all()
    if (weight > 0).all():
        model = (total / weight).astype("<f4")
        if zlib.crc32(model.tobytes()) != commit.model_crc32:
            verdict.errors.append(f"{where}: the model is not the mean of those who were folded")


def growth(samples: list[tuple[float, float]]) -> float:
    """Return by what share the mean of the last third of (time, value) samples is above that of the first third."""
    start, end = samples[0][0], samples[-1][0]
    third = (end - start) / 3
    first = [value for at, value in samples if at <= start + third]
    final = [value for at, value in samples if at >= end - third]
    return float(np.mean(final) / np.mean(first)) - 1
