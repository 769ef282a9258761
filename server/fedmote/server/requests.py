# SPDX-License-Identifier: Apache-2.0
"""Operators' requests: taken from the database, run as tasks, answered in the database."""

from __future__ import annotations

from functools import partial

from fedmote.errors import StoreUnavailableError, TaskError
from fedmote.store.requests import Requests
from fedmote.tasks.base import Result
from fedmote.tasks.requests import from_json
from fedmote.tasks.runner import TaskRunner
from fedmote.tasks.running import QueuedTask

INTERVAL_S = 1.0  # between two looks into the database
MOST_QUEUED = 50  # requests that are taken up; others wait in the database


class OperatorRequests:
    """Runs what operators ask for through the database. A request that a restart broke off is run again."""

    def __init__(self, requests: Requests, tasks: TaskRunner) -> None:
        self._requests, self._tasks = requests, tasks
        self._queued: dict[int, QueuedTask | None] = {}  # by id
        self._next_look = 0.0
        self._stopped = False

    def poll(self, now: float) -> None:
        """Take up new requests, once a second; cancel those that were taken out of the database."""
        if now < self._next_look:
            return
        self._next_look = now + INTERVAL_S
        waiting = self._requests.waiting(MOST_QUEUED)
        for request in self._queued.keys() - {request for request, _ in waiting}:
            if (task := self._queued.pop(request)) is not None:
                self._tasks.cancel(task)  # it has its result, or its caller no longer waits
        for request, text in waiting:
            if request not in self._queued:
                self._submit(request, text)

    def stop(self) -> None:
        """Answer no request any longer; the next server runs them."""
        self._stopped = True

    def _submit(self, request: int, text: str) -> None:
        self._queued[request] = None
        answer = partial(self._answer, request)
        try:
            self._queued[request] = self._tasks.submit(from_json(text), answer)
        except TaskError as error:
            answer(error)

    def _answer(self, request: int, result: Result | TaskError) -> None:
        if self._stopped:
            return
        try:
            self._requests.answer(request, {"error": str(result)} if isinstance(result, TaskError) else result)
        except StoreUnavailableError:
            self._queued.pop(request, None)  # it is run again when the database can be written
            raise
