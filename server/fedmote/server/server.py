# SPDX-License-Identifier: Apache-2.0
"""The shell: links, fleet, rounds and clock tied together on one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import StoreError, StoreUnavailableError, TaskError
from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategy import Strategy
from fedmote.links.link import Link
from fedmote.links.mqtt import MqttLink
from fedmote.links.serial import SerialPorts
from fedmote.model.initial import glorot
from fedmote.rounds.machine import RoundMachine
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.server.federation import Federation
from fedmote.store.store import Store
from fedmote.tasks.base import Result
from fedmote.tasks.requests import Request, from_json
from fedmote.tasks.runner import TaskRunner
from fedmote.tasks.running import QueuedTask

log = logging.getLogger(__name__)

MODELS_KEPT = 10  # in the database, at least
STORE_RETRY_S = 1.0
REQUESTS_S = 1.0  # between looks for what operators ask
REQUESTS = 50  # that are taken up; others wait in the database
STANDSTILL_S = 2.0  # later than that for what is due, and the process was stopped or the machine suspended
LISTEN_S = 1.0  # after a standstill, for what came meanwhile


class Server:
    """An aggregation server.

    strategy: how updates become a model (FedAvg by default). evaluate: called with every new model; its figures go
    into the log. on_round: called with the record of each committed round.
    """

    def __init__(
        self,
        federation: Federation,
        strategy: Strategy | None = None,
        *,
        evaluate: Callable[[NDArray[np.float32]], dict[str, float]] | None = None,
        on_round: Callable[[Record], None] | None = None,
    ) -> None:
        self.federation = federation
        self.strategy = strategy or FedAvg()
        self.evaluate, self.on_round = evaluate, on_round
        initial = federation.initial
        if initial is None:
            initial = glorot(federation.layout, federation.policy.seed)
        keep = max(MODELS_KEPT, federation.policy.max_staleness + 2)
        self.store = Store(federation.database, federation.layout, initial, keep)
        self._asked: dict[int, QueuedTask | None] = {}  # the tasks in the database that were taken up, by id
        self._look_at = 0.0
        self._stopping = False
        self._trouble = ""  # why nothing can be written now
        self._damage: StoreError | None = None  # found while a message was handled

    @property
    def model(self) -> NDArray[np.float32]:
        """The last committed model, flat."""
        return self.store.latest()[2]

    async def run(self, rounds: int | None = None, ready: Callable[[], None] | None = None) -> None:
        """Run until round `rounds` is committed, for ever without it. `ready`: called when devices may connect."""
        federation = self.federation
        wake = asyncio.Event()
        self.fleet = fleet = Fleet(federation.layout, federation.limits, wake.set, federation.selection)

        def lost_to_trouble(device: str, error: StoreError) -> None:
            if isinstance(error, StoreUnavailableError):
                log.error("%s. A message of %s is taken as lost; it will be said again", error, device)
            else:  # no trouble of the link's, which would go on
                self._damage = error
                wake.set()

        fleet.on_store_error = lost_to_trouble
        links = self._links(fleet)

        def broadcast(message: bytes) -> None:
            for link in links:
                link.broadcast(message)

        def publish(version: int, chunks: list[bytes]) -> None:
            for link in links:
                link.publish_model(version, chunks)

        for link in links:
            await link.start()
        try:
            setup = RoundSetup(self.strategy, federation.training, federation.policy, federation.pace, rounds)
            outlets = Outlets(broadcast, publish, self.evaluate, self.on_round)
            self.rounds, self.tasks = start_rounds(fleet, self.store, setup, outlets, federation.tasks)
            if ready is not None:
                ready()
            await self._go_round(self.rounds, wake)
        finally:
            self._stopping = True
            # All at once, so that trouble with one, or a cancellation, keeps none from closing.
            for trouble in await asyncio.gather(*(link.stop() for link in links), return_exceptions=True):
                if trouble is not None:
                    log.error("a link did not stop in order: %s", trouble)

    async def _go_round(self, rounds: RoundMachine, wake: asyncio.Event) -> None:
        """Do what is due whenever something came or its time has come, until the last round is committed."""
        try:
            while not rounds.done:
                try:
                    self._take_requests(self.tasks, time.monotonic())
                    due = rounds.tick(time.monotonic())
                except StoreUnavailableError as error:
                    self._tell_once(str(error))
                    await asyncio.sleep(STORE_RETRY_S)  # nothing was announced; the round stays open
                    continue
                self._tell_once("")
                wait = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), wake.set)
                await wake.wait()
                wait.cancel()
                wake.clear()
                if self._damage is not None:
                    raise self._damage
                if (late := time.monotonic() - due) > STANDSTILL_S:
                    log.warning("the server stood still for %.0f s; it listens before it closes what is due", late)
                    await asyncio.sleep(LISTEN_S)
        finally:
            self._stopping = True
            self.tasks.stop()

    async def ask(self, request: Request) -> Result:
        """Have a task done between rounds, while run() runs; return its result. TaskError: why there is none."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result | TaskError) -> None:
            if future.done():  # who asked has gone
                return
            if isinstance(result, TaskError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.tasks.submit(request, done)
        return await future

    def _take_requests(self, tasks: TaskRunner, now: float) -> None:
        """Take up what operators ask through the database, once a second. What a restart broke off is done again."""
        if now < self._look_at:
            return
        self._look_at = now + REQUESTS_S
        requests = self.store.requests.waiting(REQUESTS)
        for task in self._asked.keys() - {task for task, _ in requests}:
            if (asked := self._asked.pop(task)) is not None:
                tasks.cancel(asked)  # it has its result, or nobody waits for it any longer
        for task, text in requests:
            if task not in self._asked:
                self._asked[task] = None
                release = partial(self._release, task)
                try:
                    self._asked[task] = tasks.submit(from_json(text), release)
                except TaskError as error:
                    release(error)

    def _release(self, task: int, result: Result | TaskError) -> None:
        if self._stopping:
            return  # the next server does it
        try:
            self.store.requests.answer(task, {"error": str(result)} if isinstance(result, TaskError) else result)
        except StoreUnavailableError:
            self._asked.pop(task, None)  # it is done again when the database can be written
            raise

    def _tell_once(self, trouble: str) -> None:
        """Log that nothing can be written, and that it can again; not at every attempt."""
        if trouble and trouble != self._trouble:
            log.error("%s. The round stays open until it can be written", trouble)
        elif self._trouble and not trouble:
            log.info("%s can be written again; the round goes on", self.store.path)
        self._trouble = trouble

    def _links(self, fleet: Fleet) -> list[Link]:
        """Make the links that the federation names."""
        federation = self.federation
        links: list[Link] = []
        if federation.broker is not None:
            links.append(MqttLink(federation.broker, federation.name, fleet.receive, federation.ca_file))
        if federation.ports:
            links.append(SerialPorts(federation.ports, fleet.receive, fleet.link_lost))
        if not links:
            raise ValueError("a federation needs a broker, serial ports, or both")
        return links


async def run_all(servers: Sequence[Server], rounds: int | None = None) -> None:
    """Run several federations side by side. Trouble of one ends that one; it is raised when all have ended."""

    async def run(server: Server) -> None:
        try:
            await server.run(rounds)
        except Exception as error:
            if len(servers) > 1:
                log.error("federation %s has ended: %s", server.federation.name, error)
            raise

    ends = await asyncio.gather(*(run(server) for server in servers), return_exceptions=True)
    for error in ends:
        if isinstance(error, BaseException):
            raise error
