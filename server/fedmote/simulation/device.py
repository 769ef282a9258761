# SPDX-License-Identifier: Apache-2.0
"""One device that has something to do: the real C client, on a clock of its own that runs too fast or too slow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fedmote.simulation.population import Population
from fedmote.wire.codec import decode, encode
from fedmote.wire.Hello import Hello
from fedmote_device import CTrainer, Device

WIDTHS = (64, 32, 10)
_MOST_POLLS = 100_000  # without a rest: the client would never do so


@dataclass(slots=True)
class Outcome:
    """What came of a device's turn."""

    rest_s: float  # until it wants to be called again, if nothing arrives
    steps: int  # of training that it did, at most one


@dataclass(slots=True)
class VirtualDevice:
    """A C client and what is between it and the simulation.

    A step of training blocks the device, so what arrives during one waits in `inbox`.
    """

    index: int
    client: Device
    step_s: float
    rate: float
    offset_ms: int
    inbox: list[bytes] = field(default_factory=list)
    busy_until: float = 0.0
    steps: int = 0  # of the present plan
    due: float = -1.0  # of the next turn that counts
    fetching: bool = False  # a model chunk is under way
    before: Counter[str] = field(default_factory=Counter)  # what the client counted while it was brought back
    fetch_lost: int = -1  # its timeouts when a chunk was lost: it asks again after one more

    @classmethod
    def make(cls, population: Population, index: int, name: str, seed: int) -> VirtualDevice:
        """Make the device, on a link that is there."""
        part = population.parts[index]
        retry_ms = int(1000 * population.of(index).retry_s)
        client = Device(
            name, "memory:", federation="simulation", seed=seed, retry_ms=(retry_ms, 60 * retry_ms),
            trainer=CTrainer(WIDTHS, population.x[part], population.y[part]),
        )  # fmt: skip
        step_s = 1 / float(population.steps_per_s[index])
        return cls(index, client, step_s, float(population.rate[index]), int(population.offset_ms[index]))

    def own_ms(self, now: float) -> int:
        """Return what its clock shows."""
        return self.offset_ms + int(1000 * self.rate * now)

    def greet(self, now: float, battery: int, flags: int) -> None:
        """Bring it back to where it was left: welcomed, with nothing to do. The server hears nothing of it."""
        own = self.own_ms(now)
        self.client.set_state(battery, flags)
        self.client.poll(own)
        hello = decode(self.client.take() or b"")
        if not isinstance(hello, Hello):
            raise AssertionError("a new client says Hello first")
        self.client.deliver(encode("Welcome", boot=hello.Boot()), own)
        self.client.poll(own)
        self.client.take()  # its state, which the server knows
        self.before = Counter(self.client.counters)

    def counted(self) -> Counter[str]:
        """Return what the client counted, apart from how it was brought back."""
        counters = Counter(self.client.counters)
        counters.subtract(self.before)
        return counters

    def turn(self, now: float) -> Outcome:
        """Poll until it rests, has a message to send, or has done a step."""
        own = self.own_ms(now)
        for _ in range(_MOST_POLLS):
            wait = self.client.deliver(self.inbox.pop(0), own) if self.inbox else self.client.poll(own)
            before, self.steps = self.steps, self.client.steps[0]
            if self.steps > before:
                self.busy_until = now + self.step_s
                return Outcome(self.step_s, 1)
            if wait and not self.inbox:
                return Outcome((wait + 1) / 1000 / self.rate, 0)
        raise AssertionError(f"{self.client.state}: the client never rests")

    @property
    def wants_chunk(self) -> bool:
        """Whether it waits for a model chunk that nobody has set out with."""
        if self.fetching or self.client.wanted is None:
            return False
        if self.fetch_lost >= 0 and self.client.counters["timeouts"] == self.fetch_lost:
            return False
        self.fetch_lost = -1
        return True
