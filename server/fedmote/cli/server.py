# SPDX-License-Identifier: Apache-2.0
"""`fedmote server`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.logging import RichHandler

from fedmote.config.settings import Settings, load
from fedmote.errors import ConfigError
from fedmote.links.broker import PrivateUrl, private_broker
from fedmote.rounds.record import Record
from fedmote.server.server import Server, run_all

log = logging.getLogger(__name__)


@click.command()
@click.argument(
    "federations", metavar="FEDERATION...", nargs=-1, required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), help="Stop when this round is committed. [default: never]")
@click.option("--from-version", type=click.IntRange(1), help="Go on from an earlier model. [default: the last one]")
def server(federations: tuple[Path, ...], rounds: int | None, from_version: int | None) -> None:
    """Run the aggregation server of each federation that a TOML file FEDERATION describes."""
    logging.basicConfig(level="INFO", format="%(message)s", datefmt="[%X]", handlers=[RichHandler(show_path=False)])
    for number in (signal.SIGINT, signal.SIGTERM):  # also where SIGINT is ignored, as in a script's background job
        signal.signal(number, _interrupt)
    try:
        with contextlib.ExitStack() as stack:
            settings = [load(path) for path in federations]
            _check_apart(settings)
            if from_version is not None and len(settings) > 1:
                raise ConfigError("--from-version is for one federation; name one file")
            private = None
            if not all(one.addresses for one in settings):
                private = stack.enter_context(private_broker(protected=True))
            servers = [_server(one, private, len(settings) > 1) for one in settings]
            if from_version is not None:
                servers[0].go_on_from(from_version)
            asyncio.run(_until_stopped(run_all(servers, rounds)))
    except KeyboardInterrupt:
        log.info("stopped; the last committed model is in the database")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, which SIGINT and SIGTERM end in order, a second one at once. KeyboardInterrupt: one came."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    stopped: list[int] = []

    def stop(number: int) -> None:
        stopped.append(number)
        if len(stopped) == 1:
            task.cancel()
        else:
            os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
        raise KeyboardInterrupt from None


def _server(settings: Settings, private: PrivateUrl | None, several: bool) -> Server:
    """Make a federation's server, with its log. private: the broker of a federation that names no link."""
    log.info("federation %s on %s", settings.name, ", ".join(settings.addresses or [str(private)]))
    url = settings.broker if settings.addresses or private is None else private.server_url
    prefix = f"{settings.name}: " if several else ""

    def committed(record: Record) -> None:
        log.info("%sround %d: %d of %d reported, %d in part, %d refused, %d lost links, loss %.4g, %.1f s", prefix,
                 record.round, record.reported, record.selected, record.partial, record.refused, record.dropped,
                 record.loss, record.seconds)  # fmt: skip

    return Server(settings.federation(url), settings.make_strategy(), on_round=committed)


def _check_apart(settings: list[Settings]) -> None:
    """Refuse federations that would share a name or a link; only a broker serves several."""
    claims = Counter(f"name {one.name}" for one in settings)
    claims.update(f"link {address}" for one in settings for link in one.links for address in link.addresses)
    for claim, count in claims.items():
        if count > 1:
            raise ConfigError(f"two federations have the {claim}; each needs one of its own")
