# SPDX-License-Identifier: Apache-2.0
"""Offers of an update: what an UpdateBegin must say, and the slot that it becomes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.slots import Slot
from fedmote.learning.update import Update
from fedmote.model.encodings import BY_NUMBER
from fedmote.model.layout import SubLayout
from fedmote.wire.UpdateBegin import UpdateBegin
from fedmote.wire.UpdateKind import UpdateKind

MOST_RANGES = 256


@dataclass(frozen=True, slots=True)
class Terms:
    """What an offer has to meet.

    assignment: what is awaited of the device. part: what its class holds of the model. encodings: mask of what the plan
    allows. chunk_elements: as the plan says. max_examples: that are believed.
    """

    assignment: Assignment
    part: SubLayout
    encodings: int
    chunk_elements: int
    max_examples: int


def offer_error(begin: UpdateBegin, terms: Terms) -> str | None:
    """Return what is wrong with an offer; None: nothing."""
    return _wrong_base(begin, terms.assignment) or _wrong_work(begin, terms) or _wrong_elements(begin, terms.part)


def _wrong_base(begin: UpdateBegin, assignment: Assignment) -> str | None:
    if begin.BaseVersion() != assignment.base_version:
        return f"it starts from model {begin.BaseVersion()}, the round from {assignment.base_version}"
    if begin.BaseCrc32() not in (0, assignment.base_crc32):
        return f"it starts from another model {begin.BaseVersion()}: was the server's database made anew?"
    return None


def _wrong_work(begin: UpdateBegin, terms: Terms) -> str | None:
    encoding = BY_NUMBER.get(begin.Encoding())
    if encoding is None or not terms.encodings & encoding.bit or begin.ChunkElements() != terms.chunk_elements:
        return f"encoding {begin.Encoding()} in chunks of {begin.ChunkElements()} is not what the plan asked for"
    if not 1 <= begin.Examples() <= terms.max_examples:
        return f"{begin.Examples()} examples; 1 to {terms.max_examples} are believed"
    if begin.Steps() < 1 or not math.isfinite(begin.Loss()):
        return "no step was done, or the loss is not finite"
    return None


def _wrong_elements(begin: UpdateBegin, part: SubLayout) -> str | None:
    if begin.RangesLength() > MOST_RANGES:
        return f"{begin.RangesLength()} ranges; at most {MOST_RANGES} are taken"
    ranges = _ranges(begin)
    total = part.elements if ranges is None else int(ranges[:, 1].sum(dtype=np.uint64))
    if ranges is not None and not _ascending(ranges, part.elements):
        return "its ranges overlap, are empty or leave the model"
    if begin.Elements() != total:
        return f"it says {begin.Elements()} elements, its ranges hold {total}"
    return None


def open_slot(device: str, begin: UpdateBegin, part: SubLayout, local_examples: int, now: float) -> Slot:
    """Return the slot of an offer without error. local_examples: number of examples that the device holds."""
    encoding = BY_NUMBER[begin.Encoding()]
    elements, chunk_elements = begin.Elements(), begin.ChunkElements()
    chunks = -(-elements // chunk_elements)
    update = Update(
        device=device,
        examples=begin.Examples(),
        steps=begin.Steps(),
        planned_steps=begin.PlannedSteps(),
        loss=begin.Loss(),
        encoding=encoding.number,
        delta=begin.Kind() == UpdateKind.Delta,
        chunk_elements=chunk_elements,
        data=bytearray(elements * encoding.element_bytes),
        scales=np.zeros(chunks, np.float32) if encoding.scaled else None,
        received=None,
        ranges=part.ranges(_ranges(begin)),
        local_examples=local_examples,
    )
    return Slot(
        begin.Round(), begin.Crc32(), chunk_elements, encoding.element_bytes, elements, update, bytearray(chunks),
        chunks, now, now,
    )  # fmt: skip


def _ranges(begin: UpdateBegin) -> NDArray[np.uint32] | None:
    if begin.RangesLength() == 0:
        return None
    ranges = (begin.Ranges(i) for i in range(begin.RangesLength()))
    return np.array([(pair.First(), pair.Count()) for pair in ranges if pair is not None], np.uint32)


def _ascending(ranges: NDArray[np.uint32], elements: int) -> bool:
    wide = ranges.astype(np.uint64)
    ends = wide[:, 0] + wide[:, 1]
    return bool((wide[:, 1] > 0).all() and (wide[1:, 0] >= ends[:-1]).all() and int(ends[-1]) <= elements)
