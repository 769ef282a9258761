# SPDX-License-Identifier: Apache-2.0
"""The server: links, fleet, rounds, tasks and store of one federation on one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import StoreError, StoreUnavailableError, TaskError
from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategy import Strategy
from fedmote.model.initial import glorot
from fedmote.rounds.record import Record
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.all_links import make_links
from fedmote.server.assembly import start_rounds
from fedmote.server.federation import Federation
from fedmote.server.recover import check_last_model, go_on_from
from fedmote.server.requests import OperatorRequests
from fedmote.store.store import Store
from fedmote.tasks.base import Result
from fedmote.tasks.requests import Request

log = logging.getLogger(__name__)

MODELS_KEPT = 10  # in the database, at least
STORE_RETRY_S = 1.0  # seconds between two attempts to write the database
STANDSTILL_S = 2.0  # if what is due is later than that, the process was stopped or the machine suspended
LISTEN_S = 1.0  # seconds for which the server then receives before it closes what is due


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
        self._logged_error = ""  # why the database cannot be written now, as it was logged
        self._damage: StoreError | None = None  # an error of the database that ends the server

    @property
    def model(self) -> NDArray[np.float32]:
        """The last committed model, flat."""
        return self.store.models.latest()[2]

    def go_on_from(self, version: int) -> None:
        """Commit an earlier model as the next version, before run(). StoreError: it is not kept."""
        go_on_from(self.store, version)

    async def run(self, rounds: int | None = None, ready: Callable[[], None] | None = None) -> None:
        """Run until round `rounds` is committed, or for ever without it.

        ready: called when devices may connect. ConnectionError: a link cannot be started. StoreError: the database is
        damaged, or the last model cannot be trained. StrategyError: rounds failed one after the other.
        """
        check_last_model(self.store)
        federation = self.federation
        self._wake = asyncio.Event()
        self.fleet = Fleet(federation.layout, federation.limits, self._wake.set, federation.selection)
        self.fleet.on_store_error = self._message_lost
        links = make_links(federation, self.fleet)
        await links.start()
        try:
            setup = RoundSetup(
                self.strategy, federation.training, federation.policy, federation.pace, rounds, federation.bounds
            )
            outlets = Outlets(links.broadcast, links.publish_model, self.evaluate, self.on_round)
            self.rounds, self.tasks = start_rounds(self.fleet, self.store, setup, outlets, federation.tasks)
            if ready is not None:
                ready()
            await self._run_rounds()
        finally:
            await links.stop()

    async def _run_rounds(self) -> None:
        """Do what is due, whenever a message came or its time has come, until the last round is committed."""
        requests = OperatorRequests(self.store.requests, self.tasks)
        try:
            while not self.rounds.done:
                try:
                    requests.poll(time.monotonic())
                    due = self.rounds.tick(time.monotonic())
                except StoreUnavailableError as error:
                    self._log_store_error(str(error))
                    await asyncio.sleep(STORE_RETRY_S)  # nothing was announced; the round stays open
                    continue
                self._log_store_error("")
                await self._wait_until(due)
                if self._damage is not None:
                    raise self._damage
                if (late_s := time.monotonic() - due) > STANDSTILL_S:
                    log.warning("the server stood still for %.0f s; it listens before it closes what is due", late_s)
                    await asyncio.sleep(LISTEN_S)
        finally:
            requests.stop()
            self.tasks.stop()

    async def _wait_until(self, due: float) -> None:
        """Wait until something is due, or a message came that may change that."""
        timer = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    async def ask(self, request: Request) -> Result:
        """Have a task done between rounds, while run() runs; return its result. TaskError: why there is none."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result | TaskError) -> None:
            if future.done():  # the caller was cancelled
                return
            if isinstance(result, TaskError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.tasks.submit(request, done)
        return await future

    def _message_lost(self, device: str, error: StoreError) -> None:
        """Log a message that could not be acted on, or end the server if the database is damaged."""
        if isinstance(error, StoreUnavailableError):
            log.error("%s. A message of %s counts as lost; the device will repeat it", error, device)
        else:
            self._damage = error
            self._wake.set()

    def _log_store_error(self, error: str) -> None:
        """Log once that the database cannot be written, and once that it can again."""
        if error and error != self._logged_error:
            log.error("%s. The round stays open until it can be written", error)
        elif self._logged_error and not error:
            log.info("%s can be written again; the round goes on", self.store.path)
        self._logged_error = error


async def run_all(servers: Sequence[Server], rounds: int | None = None) -> None:
    """Run several federations side by side. An error of one ends that one; it is raised when all have ended."""

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
