# SPDX-License-Identifier: Apache-2.0
"""A federation for a test: the real server on a thread, a private broker, desktop devices with the real C client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.datasets import baselines
from fedmote.datasets import digits as data
from fedmote.faults.cable import Cable
from fedmote.faults.tun import ADDRESS, Network
from fedmote.fleet.limits import Limits
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategy import Strategy
from fedmote.learning.update import Update
from fedmote.links.broker import private_broker
from fedmote.links.serial import Port
from fedmote.model.layout import Layout, dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote_device import CTrainer, Device, run_many

Floats = NDArray[np.float32]

WIDTHS = (64, 32, 10)
WAIT_S = 120.0
LONG_S = 3600.0  # a round ends when everybody reported, however busy the machine is


@dataclass(frozen=True)
class Folds:
    """What one round folded: each update once, in the order in which they came."""

    base: Floats
    updates: list[Update] = field(default_factory=list)

    @property
    def devices(self) -> list[str]:
        """Whose updates they were."""
        return [update.device for update in self.updates]


class Recorder:
    """A strategy that keeps what another one folded. For tests: a server forgets each update.

    changed: called when an update was folded.
    """

    def __init__(self, strategy: Strategy, changed: Callable[[], None]) -> None:
        self.strategy, self.changed = strategy, changed
        self.finished: list[Folds] = []

    def begin(self, model: Floats) -> Accumulator:
        """Start a round."""
        self.current = Folds(model)
        return self.strategy.begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Fold, and remember if it counted."""
        counted = self.strategy.fold(accumulator, update)
        if counted:
            self.current.updates.append(update)
            self.changed()
        return counted

    def finish(self, accumulator: Accumulator) -> Floats:
        """End the round."""
        self.finished.append(self.current)
        return self.strategy.finish(accumulator)

    def without(self, folds: Folds, devices: Sequence[str]) -> Floats:
        """Return the model that the round would have made without these devices."""
        accumulator = self.strategy.begin(folds.base)
        for update in folds.updates:
            if update.device not in devices:
                self.strategy.fold(accumulator, update)
        return self.strategy.finish(accumulator)


class RunningFederation:
    """A federation that runs from the start of the context until `rounds` are committed, or to the context's end.

    devices: desktop devices, "desktop-0" and so on; the last `serial` of them on cables, the others on the broker.
    ports: the server's serial ports of other devices. trainers: one for each desktop device; without them the digits,
    dealt out among the devices and `others`, so many further shares. layout: of the model. network: broker and server
    on its one host, the desktop devices on the other. through: given the broker's URL, returns that by which the
    devices reach it; cable: makes a serial cable, (server's end, device's end): LinkFaults has both. options: of every
    Device. held: desktop devices that stop in the middle of each round's training, and so keep it open, until released.
    """

    def __init__(
        self, devices: int = 2, *, serial: int = 0, ports: Sequence[str | Port] = (), name: str = "test",
        layout: Layout | None = None, trainers: Sequence[Any] | None = None, others: int = 0,
        policy: Policy | None = None, training: Training | None = None, limits: Limits | None = None,
        strategy: Strategy | None = None, seed: int = 1, network: Network | None = None,
        through: Callable[[str], str] | None = None, cable: Callable[[], tuple[str, str]] | None = None,
        broker: bool | None = None, options: dict[str, Any] | None = None, rounds: int = 10, held: Sequence[int] = (),
    ) -> None:  # fmt: skip
        if not 0 <= serial <= devices:
            raise ValueError(f"devices {devices}, serial {serial}: expected at least 0, and serial among them")
        if trainers is not None and len(trainers) != devices:
            raise ValueError(f"{len(trainers)} trainers for {devices} devices: expected one for each")
        if not set(held) <= set(range(devices)):
            raise ValueError(f"held {list(held)}: expected numbers of desktop devices, 0 to {devices - 1}")
        self.name, self.network = name, network
        self.ports = [port if isinstance(port, Port) else Port(port) for port in ports]
        self._counts = (devices, serial)
        self._broker = devices > serial if broker is None else broker
        self._through, self._cable = through, cable
        self._options = {"backoff_ms": (50, 1000), "retry_ms": (500, 4000)} | (options or {})
        everybody = devices + len(self.ports)
        self.policy = policy or Policy(
            devices=everybody, goal=1.0, chunk_elements=128, seed=seed, soft_deadline_s=LONG_S, hard_deadline_s=LONG_S
        )
        self.training = training or Training(epochs=5, batch_size=8, learning_rate=0.2)
        self.limits = limits or Limits()
        rng = np.random.default_rng(seed)
        x, y, self._x_held, self._y_held = data.split(rng)
        self.layout = layout or dense(WIDTHS)
        self._digits = layout is None
        if trainers is None:
            parts = data.partition(y, max(1, devices + others), 1.0, rng)[:devices]
            trainers = [CTrainer(WIDTHS, x[part], y[part]) for part in parts]
        self.trainers = list(trainers)
        self.seed = seed
        self._rounds, self._held = rounds, held
        self.recorder = Recorder(strategy or FedAvg(), self._notify)
        self.records: list[Record] = []
        self.models: list[Floats] = []  # by round, first 1
        self.devices: list[Device] = []
        self.broker = ""  # its URL
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ready = False
        self._stop = threading.Event()
        self._orders: list[Callable[[], None]] = []
        self._released: set[int] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RunningFederation:
        """Start broker, server and devices; devices may connect when this returns."""
        with contextlib.ExitStack() as stack:
            if self._broker:
                host = "127.0.0.1" if self.network is None else ADDRESS["server"]
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
        """Stop devices, server and broker; raises what went wrong in their threads."""
        self._stack.close()
        if self._error is not None and kind is None:
            raise self._error

    # ---- what a test asks

    @property
    def model(self) -> Floats:
        """The last committed model, flat."""
        return self.models[-1]

    def folds(self, round: int) -> Folds:
        """Return what a committed round folded."""
        return self.recorder.finished[round - 1]

    def model_without(self, round: int, devices: Sequence[str]) -> Floats:
        """Return the model that a committed round would have made without these devices' updates."""
        return self.recorder.without(self.folds(round), devices)

    def folded(self, device: str) -> bool:
        """Tell whether the round in progress has folded the device's update: its receipt is out."""
        return device in self.recorder.current.devices

    def accuracy(self, model: Floats | None = None) -> float:
        """Return the share of held-out digits that the model, by default the last, puts into the right class."""
        if not self._digits:
            raise ValueError("accuracy is of the digits; this federation has a layout of its own")
        return baselines.accuracy(self.model if model is None else model, WIDTHS, self._x_held, self._y_held)

    def wait_rounds(self, count: int, timeout_s: float = WAIT_S) -> list[Record]:
        """Return the records of the first rounds, as soon as `count` are committed."""
        if count > self._rounds:
            raise ValueError(f"the federation ends after {self._rounds} rounds; start it with rounds={count}")
        self._until(lambda: len(self.records) >= count, timeout_s, f"no {count} rounds")
        return self.records[:count]

    def wait_folded(self, device: str, timeout_s: float = WAIT_S) -> None:
        """Wait until the round in progress has folded the device's update."""
        self._until(lambda: self.folded(device), timeout_s, f"no update of {device}")

    def order(self, what: Callable[[], None]) -> None:
        """Have the devices' thread do something; theirs is the only one that may touch a Device."""
        self._orders.append(what)

    def release(self, index: int = 0) -> None:
        """Let a held device finish the round that it is in, or else the next one."""
        self.order(lambda: self._released.add(index))

    def _let_go(self) -> None:
        for index in list(self._released):
            device = self.devices[index]
            if device.state == "working" and device.steps[0] > 0:  # a limit set before would be forgotten
                device.step_limit = 0
                self._released.remove(index)

    # ---- threads

    def _on(self, side: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.network is None else self.network.inside(side)

    def _start(
        self, stack: contextlib.ExitStack, side: str, run: Callable[[], None], end: Callable[[], object]
    ) -> None:
        def guarded() -> None:
            try:
                with self._on(side):
                    run()
            except BaseException as error:
                self._error = error
                self._notify()

        thread = threading.Thread(target=guarded, name=f"federation-{side}", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(end)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _until(self, what: Callable[[], bool], timeout_s: float, else_: str) -> None:
        """Wait for a change that makes `what` true."""
        with self._changed:
            done = self._changed.wait_for(lambda: what() or self._error is not None, timeout_s)
        if self._error is not None:
            raise self._error
        if not done:
            states = ", ".join(device.state for device in self.devices) or "none"
            fleet = getattr(self._server, "fleet", None) if self._ready else None
            there = ", ".join(sorted(fleet.sessions.by_device)) if fleet else "nobody"
            refused = (
                "".join(f"; {name} is refused: {why}" for name, why in fleet.replies.refusals.items()) if fleet else ""
            )
            raise TimeoutError(
                f"{else_} within {timeout_s:g} s; {len(self.records)} rounds; desktop devices: {states}; "
                f"the server knows {there}{refused}"
            )

    def _urls(self, stack: contextlib.ExitStack) -> list[str]:
        devices, serial = self._counts
        urls = []
        for _ in range(devices - serial):
            urls.append(self.broker if self._through is None else self._through(self.broker))
        for _ in range(serial):
            ends = self._cable() if self._cable is not None else stack.enter_context(Cable()).ends
            self.ports.append(Port(ends[0]))
            urls.append(f"serial://{ends[1]}")
        return urls

    def _make_devices(self, urls: list[str]) -> None:
        for i, (url, trainer) in enumerate(zip(urls, self.trainers, strict=True)):
            options: dict[str, Any] = {"federation": self.name, "seed": 1000 * self.seed + i + 1} | self._options
            self.devices.append(Device(f"desktop-{i}", url, trainer=trainer, **options))
        for index in self._held:
            self.devices[index].set_step_limits([1] * (self._rounds + 1))

    def _run_devices(self) -> None:
        def until() -> bool:
            while self._orders:
                self._orders.pop(0)()
            self._let_go()
            return self._stop.is_set()

        try:
            run_many(self.devices, until)
        finally:
            for device in self.devices:
                device.close()  # or the server would wait for them to take what it said last

    def _committed(self, record: Record) -> None:
        self.models.append(self._server.rounds.model.copy())
        self.records.append(replace(record))
        self._notify()

    def _serve(self) -> None:
        federation = Federation(
            self.name, self.layout, self.broker or None, self.training, self.policy, self.limits,
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
        await self._server.run(self._rounds, self._now_ready)

    def _now_ready(self) -> None:
        self._ready = True
        self._notify()

    def _end_server(self) -> None:
        def cancel() -> None:
            if len(self.records) < self._rounds:  # otherwise it is about to end by itself, and closes its links
                self._task.cancel()

        if self._ready:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                self._loop.call_soon_threadsafe(cancel)
