# SPDX-License-Identifier: Apache-2.0
"""Who is asked: which devices may take part, and which of them do in a round. No I/O, and no clock of its own.

The same seed, round, candidates and history give the same choice. What it costs grows with n log n of the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

CHARGING: Final = 1  # bits of DeviceState.flags
METERED: Final = 2
BUSY: Final = 4
UNKNOWN_BATTERY: Final = 255
AGE_POWER: Final = 2  # of the rounds that a device was not asked, as its weight in the draw
MOST_TURNS: Final = 10.0  # of asking all candidates once: being away for longer makes nobody more probable
MOST_KNOWN: Final = 100_000  # devices whose speed and utility are remembered
EPSILON: Final = (0.9, 0.98, 0.2)  # share of the draw that goes to unknown devices: first, factor a round, least
CLIP: Final = 95.0  # percentile at which utilities are cut, and in percent the share of the least that is taken
ALPHA: Final = 2.0  # how hard a device is punished for taking longer than preferred

Indices = NDArray[np.intp]

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selection:
    """Whom the federation asks: [selection] of federation.toml.

    by: "fair" prefers those who were not asked for long, "random" is blind, "utility" prefers those whose updates teach
    most for their time (Oort). tiers: groups by speed; each round asks devices of one group (TiFL); 1: all are one.
    require_*, min_*: what a device must say of itself. A battery or a free memory that it does not tell is enough.
    """

    by: Literal["fair", "random", "utility"] = "fair"
    tiers: int = 1
    require_charging: bool = False
    require_unmetered: bool = False
    require_idle: bool = True
    min_battery: int = 0
    min_free_memory_kib: int = 0

    def permits(self, flags: int, battery: int, free_memory_kib: int) -> bool:
        """Tell whether a device in this state may be asked. battery 255, free_memory_kib 0: it does not tell."""
        return (
            (not self.require_charging or bool(flags & CHARGING))
            and (not self.require_unmetered or not flags & METERED)
            and (not self.require_idle or not flags & BUSY)
            and battery >= self.min_battery  # 255, the unknown, is above any
            and (free_memory_kib == 0 or free_memory_kib >= self.min_free_memory_kib)
        )


def weighted(weights: Numbers, count: int, random: np.random.Generator) -> Indices:
    """Draw `count` indices without replacement, each in proportion to its weight among those that are left.

    Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir", algorithm A, in its exponential form.
    """
    return np.argsort(random.exponential(size=weights.size) / weights, kind="stable")[:count]


def fair_weights(ages: Numbers, count: int) -> Numbers:
    """Return weights for a draw of `count` in which whoever was not asked for `ages` rounds, at least 1, is preferred.

    After the age-based scheduling of Yang et al. 2020 (arXiv:1910.14648), but drawn: the oldest first would put the
    same devices together round after round. In a fleet that is always there, a device that was last asked x turns ago
    (a turn: the rounds in which all could be asked once) is asked in a round with probability 1 - exp(-2.1 x^2 r),
    where r is the share of the fleet that a round asks: the hazard c age^2 for which 1 / r rounds lie between two draws
    in the mean.
    """
    cap = max(1.0, MOST_TURNS * ages.size / max(count, 1))
    return np.asarray(np.minimum(ages, cap) ** AGE_POWER, np.float64)


def epsilon(number: int) -> float:
    """Return the share of round `number` that is drawn from devices of unknown utility."""
    first, factor, least = EPSILON
    return float(max(least, first * factor ** (number - 1)))


def utilities(
    learnt: Numbers, last_rounds: Numbers, seconds: Numbers, number: int, preferred_s: float
) -> Numbers:  # fmt: skip
    """Return what asking each device in round `number` promises: Oort (Lai et al., OSDI 2021), algorithm 1.

    learnt: statistical utility, |B| sqrt(mean of squared losses). last_rounds: in which each was heard. seconds: that
    each takes. preferred_s: longer is punished. As in the authors' program, the learnt utility is brought to 0 to 1
    before sqrt(0.1 log R / L) is added for those not heard for long.
    """
    clipped = np.minimum(learnt, np.percentile(learnt, CLIP))
    low, high = clipped.min(), clipped.max()
    scaled = (clipped - low) / (high - low) if high > low else np.ones_like(clipped)
    promise = scaled + np.sqrt(0.1 * math.log(max(number, 1)) / np.maximum(last_rounds, 1))
    slow = np.minimum(1.0, preferred_s / np.maximum(seconds, 1e-9)) ** ALPHA
    return np.asarray(np.maximum(promise * slow, 1e-9), np.float64)


class Tiers:
    """Groups of like speed, of which each round asks one: TiFL (Chai et al., HPDC 2020).

    Those of unknown speed are group 0. It comes first as soon as it fills a round; fewer than that are asked along with
    the slowest group, whose deadline is the longest. The others, 1 (fastest) to `count`, are equally large; each earns
    its share of credit with each round, and the one with the most pays for the round: none falls behind its share by
    more than `count` rounds, however slow it is.
    """

    PROFILING: Final = 0

    def __init__(self, count: int) -> None:
        self.credit = np.zeros(count)

    def pick(self, seconds: Numbers, wanted: int) -> tuple[int, Indices]:
        """Return the group whose turn it is and its members. seconds: each candidate's time, NaN: unknown."""
        unknown = np.flatnonzero(np.isnan(seconds))
        known = np.flatnonzero(~np.isnan(seconds))
        if unknown.size >= wanted or known.size == 0:
            return self.PROFILING, unknown
        groups = np.array_split(known[np.argsort(seconds[known], kind="stable")], self.credit.size)
        sizes = np.array([group.size for group in groups])
        self.credit += sizes / known.size
        turn = int(np.argmax(np.where(sizes > 0, self.credit, -np.inf)))
        self.credit[turn] -= 1.0
        slowest = int(np.flatnonzero(sizes)[-1])
        members = np.concatenate([groups[turn], unknown]) if turn == slowest else groups[turn]
        return turn + 1, np.sort(members)


class Choice(NamedTuple):
    """Who is asked, in order of name. tier: their group; 0: of unknown speed, to be measured; 1: without tiers."""

    tier: int
    devices: list[str]


@dataclass(slots=True)
class _Known:
    """What one device's work told; in memory only."""

    seconds: float
    learnt: float | None = None  # None: it was asked and not heard
    round: int = 0


class Selector:
    """Chooses for one federation and remembers what the choice depends on.

    lookup: returns the rounds in which devices were asked last, for those of the given ones that ever were.
    """

    def __init__(self, selection: Selection, seed: int, lookup: Callable[[Sequence[str]], dict[str, int]]) -> None:
        self.selection, self.seed, self._lookup = selection, seed, lookup
        self.tiers = Tiers(selection.tiers)
        self.unsaved: dict[str, int] = {}  # device -> round in which it was asked, since `saved`
        self._asked: dict[str, int] = {}  # the same of those who are or were there
        self._known: dict[str, _Known] = {}  # the one heard longest ago first

    def choose(
        self, candidates: Sequence[str], count: int, number: int, preferred_s: float, draw: int = 0
    ) -> Choice:  # fmt: skip
        """Choose `count` of the candidates, or as many as there are, for round `number`.

        preferred_s: a device that takes longer is worth less. draw: tells apart several draws of one round.
        """
        random = np.random.default_rng([self.seed, number, draw])
        tiered = self.selection.tiers > 1
        tier, members = Tiers.PROFILING if tiered else 1, np.arange(len(candidates))
        if tiered and count:
            seconds = [known.seconds if (known := self._known.get(d)) else math.nan for d in candidates]
            tier, members = self.tiers.pick(np.array(seconds, np.float64), min(count, len(candidates)))
        devices = [candidates[i] for i in members.tolist()]
        drawn = self._draw(devices, min(count, len(devices)), number, preferred_s, random)
        return Choice(tier, sorted(devices[i] for i in drawn))

    def _draw(
        self, devices: list[str], count: int, number: int, preferred_s: float, random: np.random.Generator
    ) -> Indices:
        if self.selection.by == "random":
            return random.permutation(len(devices))[:count]
        weights = fair_weights(self._ages(devices, number), count)
        if self.selection.by == "fair":
            return weighted(weights, count, random)
        heard = [known if (known := self._known.get(d)) and known.learnt is not None else None for d in devices]
        promising = np.array([i for i, known in enumerate(heard) if known], np.intp)
        others = np.array([i for i, known in enumerate(heard) if not known], np.intp)
        share = min(len(others), max(round(epsilon(number) * count), count - len(promising)))
        explored = others[weighted(weights[others], share, random)]
        if share == count:
            return explored
        learnt, rounds, seconds = np.array([(k.learnt, k.round, k.seconds) for k in heard if k], np.float64).T
        worth = utilities(learnt, rounds, seconds, number, preferred_s)
        least = np.sort(worth)[-(count - share)] * CLIP / 100
        pool = np.flatnonzero(worth >= least)
        return np.concatenate([explored, promising[pool[weighted(worth[pool], count - share, random)]]])

    def _ages(self, devices: list[str], number: int) -> Numbers:
        """Return the rounds since each was asked, plus 1; one that never was counts as asked before round 1."""
        asked = self._asked
        new = [device for device in devices if device not in asked]
        if new:
            if len(asked) > MOST_KNOWN:
                asked = self._asked = {device: asked[device] for device in devices if device in asked}
            asked.update(dict.fromkeys(new, 0))
            asked.update(self._lookup(new))
            asked.update((device, self.unsaved[device]) for device in new if device in self.unsaved)
        return np.array([number + 1 - asked[device] for device in devices], np.float64)

    # ---- what happened

    def asked(self, devices: Iterable[str], number: int) -> None:
        """Note that devices are asked for round `number`."""
        for device in devices:
            self.unsaved[device] = self._asked[device] = number

    def saved(self) -> None:
        """Note that `unsaved` is where `lookup` finds it."""
        self.unsaved = {}

    def reported(self, device: str, number: int, seconds: float, examples: int, loss: float) -> None:
        """Note what a device's update told: its time, and its mean loss, the nearest to Oort's that an update has."""
        if self._remembers:
            before = self._known.get(device)
            mean = seconds if before is None or before.learnt is None else (before.seconds + seconds) / 2
            self._remember(device, _Known(mean, examples * abs(loss), number))

    def missed(self, device: str, seconds: float) -> None:
        """Note that a device was not done after so many seconds: it takes at least that long."""
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
