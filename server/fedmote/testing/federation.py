# SPDX-License-Identifier: Apache-2.0
"""A federation for a test: the real server on a thread, a private broker, desktop devices with the real C client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.datasets import baselines
from fedmote.datasets import digits as data
from fedmote.faults.cable import Cable
from fedmote.faults.tun import ADDRESS, Side
from fedmote.fleet.fleet import Fleet
from fedmote.fleet.limits import Limits
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.links.broker import private_broker
from fedmote.links.serial import Port
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote.testing.recorder import Folds, Recorder
from fedmote.testing.setup import FederationSetup, Trainer
from fedmote.testing.watch import Watch
from fedmote_device import CTrainer, Device, run_many

Floats = NDArray[np.float32]

WAIT_S = 120.0
LONG_S = 3600.0  # a round ends when all devices have reported, even on a busy machine
DEVICE_OPTIONS: dict[str, Any] = {"backoff_ms": (50, 1000), "retry_ms": (500, 4000)}


def _trainers(setup: FederationSetup) -> tuple[list[Trainer], tuple[data.Features, data.Labels]]:
    """Return the desktop devices' trainers, by default for the digits, and the held-out digits."""
    rng = np.random.default_rng(setup.seed)
    x, y, x_held, y_held = data.split(rng)
    if setup.trainers is not None:
        return list(setup.trainers), (x_held, y_held)
    parts = data.partition(y, max(1, setup.devices + setup.others), 1.0, rng)[: setup.devices]
    return [CTrainer(data.WIDTHS, x[part], y[part]) for part in parts], (x_held, y_held)


def _known_devices(fleet: Fleet) -> str:
    refused = "".join(f"; {name} is refused: {why}" for name, why in fleet.replies.refusals.items())
    return (", ".join(sorted(fleet.sessions.by_device)) or "no device") + refused


class RunningFederation:
    """A federation that runs until `rounds` are committed, or until the context ends.

    model, models, records: the last model, all of them by round from round 1 on, and the rounds' records. devices: the
    desktop devices. broker: its URL. options: as FederationSetup has them.
    """

    def __init__(self, **options: Any) -> None:
        setup = self.setup = FederationSetup(**options)
        self.ports = [port if isinstance(port, Port) else Port(port) for port in setup.ports]
        self.policy = setup.policy or Policy(
            devices=setup.devices + len(self.ports), goal=1.0, chunk_elements=128, seed=setup.seed,
            soft_deadline_s=LONG_S, hard_deadline_s=LONG_S,
        )  # fmt: skip
        self.layout = setup.layout or dense(data.WIDTHS)
        self.trainers, self._held_out = _trainers(setup)
        self._watch = Watch()
        self.recorder = Recorder(setup.strategy or FedAvg(), self._watch.notify)
        self.records: list[Record] = []
        self.models: list[Floats] = []
        self.devices: list[Device] = []
        self.broker = ""
        self._ready = False
        self._stop = threading.Event()
        self._calls: list[Callable[[], None]] = []
        self._released: set[int] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RunningFederation:
        """Start broker, server and devices; devices may connect when this returns."""
        with contextlib.ExitStack() as stack:
            if self.setup.needs_broker:
                host = "127.0.0.1" if self.setup.network is None else ADDRESS["server"]
                with self._on("server"):
                    self.broker = stack.enter_context(private_broker(host=host))
            urls = self._urls(stack)
            self._start(stack, "server", self._serve, self._end_server)
            self._until(lambda: self._ready, WAIT_S, "the server did not start")
            if urls:
                self._make_devices(urls)
                self._start(stack, "device", self._run_devices, self._stop.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop devices, server and broker; raise the first error of their threads."""
        self._stack.close()
        if self._watch.error is not None and kind is None:
            raise self._watch.error

    # ---- results

    @property
    def model(self) -> Floats:
        """The last committed model, flat."""
        return self.models[-1]

    def folds(self, round: int) -> Folds:
        """Return what a committed round folded."""
        return self.recorder.finished[round - 1]

    def model_without(self, round: int, devices: Sequence[str]) -> Floats:
        """Return the model of a committed round as it would be without these devices' updates."""
        return self.recorder.without(self.folds(round), devices)

    def folded(self, device: str) -> bool:
        """Return whether the current round has folded the device's update, so that its receipt was sent."""
        return device in self.recorder.current.devices

    def accuracy(self, model: Floats | None = None) -> float:
        """Return the accuracy, 0 to 1, of a model, by default the last, on the held-out digits."""
        if self.setup.layout is not None:
            raise ValueError("accuracy() knows only the digits; this federation has a layout of its own")
        return baselines.accuracy(self.model if model is None else model, data.WIDTHS, *self._held_out)

    def wait_rounds(self, count: int, timeout_s: float = WAIT_S) -> list[Record]:
        """Return the records of the first rounds, as soon as `count` are committed."""
        if count > self.setup.rounds:
            raise ValueError(f"the federation ends after {self.setup.rounds} rounds; start it with rounds={count}")
        self._until(lambda: len(self.records) >= count, timeout_s, f"no {count} rounds")
        return self.records[:count]

    def wait_folded(self, device: str, timeout_s: float = WAIT_S) -> None:
        """Wait until the current round has folded the device's update."""
        self._until(lambda: self.folded(device), timeout_s, f"no update of {device}")

    def call_on_devices_thread(self, call: Callable[[], None]) -> None:
        """Call a function on the devices' thread. No other thread may use a Device."""
        self._calls.append(call)

    def release(self, index: int = 0) -> None:
        """Let a held device finish its current round, or its next one if it is in none."""
        self.call_on_devices_thread(lambda: self._released.add(index))

    def _release_held(self) -> None:
        for index in list(self._released):
            device = self.devices[index]
            if device.state == "working" and device.steps[0] > 0:  # an earlier limit would be lost
                device.step_limit = 0
                self._released.remove(index)

    # ---- threads

    def _on(self, side: Side) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.setup.network is None else self.setup.network.inside(side)

    def _start(
        self, stack: contextlib.ExitStack, side: Side, run: Callable[[], None], end: Callable[[], object]
    ) -> None:
        def guarded() -> None:
            try:
                with self._on(side):
                    run()
            except BaseException as error:
                self._watch.fail(error)

        thread = threading.Thread(target=guarded, name=f"federation-{side}", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(end)

    def _until(self, done: Callable[[], bool], timeout_s: float, problem: str) -> None:
        """Wait for a change after which `done` returns True. TimeoutError: the problem, and the state of all."""
        if self._watch.wait(done, timeout_s):
            return
        states = ", ".join(device.state for device in self.devices) or "none"
        raise TimeoutError(
            f"{problem} within {timeout_s:g} s; {len(self.records)} rounds; desktop devices: {states}; "
            f"the server knows {_known_devices(self._server.fleet) if self._ready else 'no device'}"
        )

    def _urls(self, stack: contextlib.ExitStack) -> list[str]:
        setup = self.setup
        urls = []
        for _ in range(setup.devices - setup.serial):
            urls.append(self.broker if setup.through is None else setup.through(self.broker))
        for _ in range(setup.serial):
            ends = setup.cable() if setup.cable is not None else stack.enter_context(Cable()).ends
            self.ports.append(Port(ends[0]))
            urls.append(f"serial://{ends[1]}")
        return urls

    def _make_devices(self, urls: list[str]) -> None:
        setup = self.setup
        for i, (url, trainer) in enumerate(zip(urls, self.trainers, strict=True)):
            options = DEVICE_OPTIONS | {"federation": setup.name, "seed": 1000 * setup.seed + i + 1} | setup.options
            self.devices.append(Device(f"desktop-{i}", url, trainer=trainer, **options))
        for index in setup.held:
            self.devices[index].set_step_limits([1] * (setup.rounds + 1))

    def _run_devices(self) -> None:
        def until() -> bool:
            while self._calls:
                self._calls.pop(0)()
            self._release_held()
            return self._stop.is_set()

        try:
            run_many(self.devices, until)
        finally:
            for device in self.devices:
                device.close()  # so that the server does not wait for them to acknowledge its last messages

    def _committed(self, record: Record) -> None:
        self.models.append(self._server.rounds.model.copy())
        self.records.append(replace(record))
        self._watch.notify()

    def _serve(self) -> None:
        setup = self.setup
        training = setup.training or Training(epochs=5, batch_size=8, learning_rate=0.2)
        federation = Federation(
            setup.name, self.layout, self.broker or None, training, self.policy, setup.limits or Limits(),
            ports=tuple(self.ports),
        )  # fmt: skip
        self._server = Server(federation, self.recorder, on_round=self._committed)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(self._run_server())
        finally:
            self._server.store.close()

    async def _run_server(self) -> None:
        self._loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._task = task
        await self._server.run(self.setup.rounds, self._now_ready)

    def _now_ready(self) -> None:
        self._ready = True
        self._watch.notify()

    def _end_server(self) -> None:
        def cancel() -> None:
            if len(self.records) < self.setup.rounds:  # otherwise it ends by itself and closes its links
                self._task.cancel()

        if self._ready:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                self._loop.call_soon_threadsafe(cancel)
