# SPDX-License-Identifier: Apache-2.0
"""A virtual device with work: the real C client, on its own drifting clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fedmote.simulation.population import Population
from fedmote.simulation.workload import Workload
from fedmote.wire.codec import decode, encode
from fedmote.wire.Hello import Hello
from fedmote_device import Device

_MOST_POLLS = 100_000  # polls in a row without a wait; the client never needs as many


@dataclass(slots=True)
class Outcome:
    """The result of polling a device.

    wait_s: seconds until it must be polled again, unless a message arrives. steps: training steps done, 0 or 1.
    """

    wait_s: float
    steps: int


@dataclass(slots=True)
class VirtualDevice:
    """A C client, and its state in the simulation.

    step_s: seconds of one training step. rate, offset_ms: of its clock. inbox: messages that arrived during a training
    step, which blocks the device. busy_until: end of that step. steps: done for the current plan. due: when its next
    poll is due. fetching: whether a model chunk is in transit. before: the client's counters after it was resumed.
    fetch_lost: the number of its timeouts when a chunk was lost; after one more it asks again.
    """

    index: int
    client: Device
    step_s: float
    rate: float
    offset_ms: int
    inbox: list[bytes] = field(default_factory=list)
    busy_until: float = 0.0
    steps: int = 0
    due: float = -1.0
    fetching: bool = False
    before: Counter[str] = field(default_factory=Counter)
    fetch_lost: int = -1

    @classmethod
    def create(cls, population: Population, workload: Workload, index: int, name: str, seed: int) -> VirtualDevice:
        """Return a new device, with its link up."""
        retry_ms = int(1000 * population.class_of(index).retry_s)
        client = Device(
            name, "memory:", federation="simulation", seed=seed, retry_ms=(retry_ms, 60 * retry_ms),
            trainer=workload.trainer(index),
        )  # fmt: skip
        step_s = 1 / float(population.steps_per_s[index])
        return cls(index, client, step_s, float(population.rate[index]), int(population.offset_ms[index]))

    def own_ms(self, now: float) -> int:
        """Return the device's own time in milliseconds."""
        return self.offset_ms + int(1000 * self.rate * now)

    def resume(self, now: float, battery: int, flags: int) -> None:
        """Restore the parked state: welcomed and idle. No message reaches the server."""
        own = self.own_ms(now)
        self.client.set_state(battery, flags)
        self.client.poll(own)
        hello = decode(self.client.take() or b"")
        if not isinstance(hello, Hello):
            raise AssertionError("the first message of a new client must be Hello")
        self.client.deliver(encode("Welcome", boot=hello.Boot()), own)
        self.client.poll(own)
        self.client.take()  # its state, which the server already knows
        self.before = Counter(self.client.counters)

    def counted(self) -> Counter[str]:
        """Return the client's counters, without those of its resumption."""
        counters = Counter(self.client.counters)
        counters.subtract(self.before)
        return counters

    def poll(self, now: float) -> Outcome:
        """Poll until the client waits, has a message to send, or has done a step."""
        own = self.own_ms(now)
        for _ in range(_MOST_POLLS):
            wait = self.client.deliver(self.inbox.pop(0), own) if self.inbox else self.client.poll(own)
            before, self.steps = self.steps, self.client.steps[0]
            if self.steps > before:
                self.busy_until = now + self.step_s
                return Outcome(self.step_s, 1)
            if wait and not self.inbox:
                return Outcome((wait + 1) / 1000 / self.rate, 0)
        raise AssertionError(f"the client in state {self.client.state} still has work after {_MOST_POLLS} polls")

    def lose_chunk(self) -> None:
        """Note that the chunk in transit was lost."""
        if self.fetching:
            self.fetching = False
            self.fetch_lost = self.client.counters["timeouts"]

    @property
    def wants_chunk(self) -> bool:
        """Whether it waits for a model chunk that is not in transit."""
        if self.fetching or self.client.wanted is None:
            return False
        if self.fetch_lost >= 0 and self.client.counters["timeouts"] == self.fetch_lost:
            return False
        self.fetch_lost = -1
        return True
