# SPDX-License-Identifier: Apache-2.0
"""Ask a running server for a task through its database, and wait for the result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click

from fedmote.config.settings import load
from fedmote.errors import TaskError
from fedmote.store.database import is_served
from fedmote.store.requests import submitted
from fedmote.tasks.base import Result
from fedmote.tasks.requests import Request, to_json

POLL_S = 0.5
ABSENT_S = 30.0  # seconds without a server until the command gives up; a server may be restarting on a busy machine


def ask(database: Path, request: Request, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Have the server of this database run a task; return its result. TaskError: why there is none."""
    absent_s = 0.0
    with submitted(database, to_json(request)) as pending:
        while (result := pending.result()) is None:
            absent_s = 0.0 if is_served(database) else absent_s + POLL_S
            if absent_s > ABSENT_S:
                raise TaskError(f"no server runs on {database}; start it with fedmote server")
            sleep(POLL_S)
    if "error" in result:
        raise TaskError(result["error"])
    return result


def print_result(federation: Path, request: Request) -> None:
    """Have the server of a federation.toml run a task, and print its result as JSON. TaskError: why there is none."""
    click.echo(json.dumps(ask(load(federation).database, request), indent=2))
