# SPDX-License-Identifier: Apache-2.0
"""The command line: `fedmote demo`, `fedmote server`, `fedmote simulate`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import click
from rich.logging import RichHandler

from fedmote import __version__
from fedmote.broker import BrokerError, private_broker
from fedmote.config import ConfigError, load
from fedmote.demo.cli import command as demo
from fedmote.links.url import BrokerUrl
from fedmote.round import Record
from fedmote.server import Server
from fedmote.simulation.cli import command as simulate
from fedmote.store import StoreError
from fedmote.strategy import STRATEGIES


@click.group()
@click.version_option(__version__, prog_name="fedmote")
def main() -> None:
    """Federated learning for devices that Python cannot reach."""


@main.command()
@click.argument("federation", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--rounds", type=click.IntRange(1), help="Stop when this round is committed; without it, never.")
def server(federation: Path, rounds: int | None) -> None:
    """Run the aggregation server that the TOML file FEDERATION describes."""
    logging.basicConfig(level="INFO", format="%(message)s", datefmt="[%X]", handlers=[RichHandler(show_path=False)])
    log = logging.getLogger("fedmote")

    def committed(record: Record) -> None:
        log.info("round %d: %d of %d reported, %d in part, %d lost links, %.1f s", record.round, record.reported,
                 record.selected, record.partial, record.dropped, record.seconds)  # fmt: skip

    try:
        with contextlib.ExitStack() as stack:
            settings = load(federation)
            url = settings.broker
            if url is None and not settings.ports:
                url = stack.enter_context(private_broker())
            where = [port.url for port in settings.ports]
            if url is not None:
                where.insert(0, str(BrokerUrl.parse(url)))  # without the password
            log.info("federation %s on %s", settings.name, ", ".join(where))
            strategy = STRATEGIES[settings.strategy]()
            asyncio.run(Server(settings.federation(url), strategy, on_round=committed).run(rounds))
    except (ConfigError, BrokerError, ConnectionError, StoreError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        log.info("stopped; the last committed model is in the database")


main.add_command(demo, "demo")
main.add_command(simulate, "simulate")
