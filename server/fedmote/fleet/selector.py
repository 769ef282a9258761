# SPDX-License-Identifier: Apache-2.0
"""Client selection: which of the ready devices a round selects. No I/O, no clock of its own.

The same seed, round, candidates and history give the same choice. The cost grows with n log n of the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from fedmote.fleet.sampling import CLIP, Indices, Numbers, epsilon, fair_weights, utilities, weighted
from fedmote.fleet.selection import Selection
from fedmote.fleet.tiers import Tiers

MOST_KNOWN: Final = 100_000  # devices whose speed and utility are remembered


class Choice(NamedTuple):
    """The selected devices, in order of their ids.

    tier: their group; 0: of unknown speed, to be measured; 1: when there are no tiers.
    """

    tier: int
    devices: list[str]


@dataclass(slots=True)
class _Known:
    """What one device's work told; in memory only. learnt: None: it was selected and did not report in time."""

    seconds: float
    learnt: float | None = None
    round: int = 0


class Selector:
    """Selects devices for one federation, and remembers what the choice depends on.

    lookup: returns, for the given devices, the round in which each was last selected; those that never were are left
    out. unsaved: device -> round of its selection, since the last note_saved().
    """

    def __init__(self, selection: Selection, seed: int, lookup: Callable[[Sequence[str]], dict[str, int]]) -> None:
        self.selection, self.seed, self._lookup = selection, seed, lookup
        self.tiers = Tiers(selection.tiers)
        self.unsaved: dict[str, int] = {}
        self._selected: dict[str, int] = {}  # device -> round of its last selection, for devices seen as candidates
        self._known: dict[str, _Known] = {}  # the device unheard for longest comes first

    def choose(
        self, candidates: Sequence[str], count: int, number: int, preferred_s: float, draw: int = 0
    ) -> Choice:  # fmt: skip
        """Select `count` of the candidates, or all if there are fewer, for round `number`.

        preferred_s: a device that takes longer is worth less. draw: tells several draws of one round apart.
        """
        rng = np.random.default_rng([self.seed, number, draw])
        tiered = self.selection.tiers > 1
        tier, members = Tiers.PROFILING if tiered else 1, np.arange(len(candidates))
        if tiered and count:
            seconds = [known.seconds if (known := self._known.get(d)) else math.nan for d in candidates]
            tier, members = self.tiers.pick(np.array(seconds, np.float64), min(count, len(candidates)))
        devices = [candidates[i] for i in members.tolist()]
        picked = self._draw(devices, min(count, len(devices)), number, preferred_s, rng)
        return Choice(tier, sorted(devices[i] for i in picked))

    def _draw(
        self, devices: list[str], count: int, number: int, preferred_s: float, rng: np.random.Generator
    ) -> Indices:
        if self.selection.by == "random":
            return rng.permutation(len(devices))[:count]
        weights = fair_weights(self._ages(devices, number), count)
        if self.selection.by == "fair":
            return weighted(weights, count, rng)
        return self._draw_by_utility(devices, weights, count, number, preferred_s, rng)

    def _draw_by_utility(
        self, devices: list[str], weights: Numbers, count: int, number: int, preferred_s: float,
        rng: np.random.Generator,
    ) -> Indices:  # fmt: skip
        """Draw devices of unknown utility by their weights, and others by their utility (Oort)."""
        heard = [self._heard(device) for device in devices]
        promising = np.array([i for i, known in enumerate(heard) if known], np.intp)
        others = np.array([i for i, known in enumerate(heard) if not known], np.intp)
        share = min(len(others), max(round(epsilon(number) * count), count - len(promising)))
        explored = others[weighted(weights[others], share, rng)]
        if share == count:
            return explored
        learnt, rounds, seconds = np.array([(k.learnt, k.round, k.seconds) for k in heard if k], np.float64).T
        worth = utilities(learnt, rounds, seconds, number, preferred_s)
        least = np.sort(worth)[-(count - share)] * CLIP / 100
        pool = np.flatnonzero(worth >= least)
        return np.concatenate([explored, promising[pool[weighted(worth[pool], count - share, rng)]]])

    def _heard(self, device: str) -> _Known | None:
        """Return what a device's reports told; None: it has not reported."""
        known = self._known.get(device)
        return known if known is not None and known.learnt is not None else None

    def _ages(self, devices: list[str], number: int) -> Numbers:
        """Return the rounds since each device was selected, plus 1; if it never was, as if selected before round 1."""
        selected = self._selected
        new = [device for device in devices if device not in selected]
        if new:
            if len(selected) > MOST_KNOWN:
                selected = self._selected = {device: selected[device] for device in devices if device in selected}
            selected.update(dict.fromkeys(new, 0))
            selected.update(self._lookup(new))
            selected.update((device, self.unsaved[device]) for device in new if device in self.unsaved)
        return np.array([number + 1 - selected[device] for device in devices], np.float64)

    # ---- what happened

    def note_selected(self, devices: Iterable[str], number: int) -> None:
        """Note that devices are selected for round `number`."""
        for device in devices:
            self.unsaved[device] = self._selected[device] = number

    def note_saved(self) -> None:
        """Note that `unsaved` is stored where `lookup` finds it."""
        self.unsaved = {}

    def note_reported(self, device: str, number: int, seconds: float, examples: int, loss: float) -> None:
        """Note a device's time and utility. The utility is its mean loss, the nearest to Oort's that an update has."""
        if self._remembers:
            before = self._known.get(device)
            mean = seconds if before is None or before.learnt is None else (before.seconds + seconds) / 2
            self._remember(device, _Known(mean, examples * abs(loss), number))

    def note_overdue(self, device: str, seconds: float) -> None:
        """Note that a device was not done after so many seconds, so it takes at least that long."""
        if self._remembers:
            before = self._known.get(device, _Known(0.0))
            self._remember(device, _Known(max(before.seconds, seconds), before.learnt, before.round))

    @property
    def _remembers(self) -> bool:
        return self.selection.tiers > 1 or self.selection.by == "utility"

    def _remember(self, device: str, known: _Known) -> None:
        self._known.pop(device, None)
        self._known[device] = known
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
