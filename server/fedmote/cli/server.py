# SPDX-License-Identifier: Apache-2.0
"""`fedmote server`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import Counter
from pathlib import Path

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
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # service managers send SIGTERM
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
            asyncio.run(run_all(servers, rounds))
    except KeyboardInterrupt:
        log.info("stopped; the last committed model is in the database")


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
