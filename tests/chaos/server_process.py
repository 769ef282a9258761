# SPDX-License-Identifier: Apache-2.0
"""The chaos run's server: the real one, which writes down what it folds before each commit.

Arguments: the broker's URL, the folder of database and ledger, devices.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from ledger import CHUNK, ELEMENTS

from fedmote.layout import Layout, Tensor
from fedmote.round import Policy
from fedmote.server import Federation, Server
from fedmote.session import Limits
from fedmote.strategy import Accumulator, FedAvg, Model, Update
from fedmote_device import kernels

CHUNKS = -(-ELEMENTS // CHUNK)
NO_BROKER = 3


class Noted(FedAvg):
    """FedAvg that writes each round's folds down, durably, when it makes the model of them."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "a")  # noqa: SIM115 (open for as long as the process)
        self.folds: list[tuple[str, int, str]] = []
        self.round = 0

    def begin(self, model: Model) -> Accumulator:
        self.folds = []
        return super().begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        done = super().fold(accumulator, update)
        if done:
            chunks = "".join(map(str, update.received)) if update.received is not None else "1" * CHUNKS
            self.folds.append((update.device, kernels.crc32(update.data), chunks))
        return done

    def finish(self, accumulator: Accumulator) -> Model:
        model = super().finish(accumulator)
        line = {"at": time.time(), "folds": self.folds, "model_crc32": kernels.crc32(model.tobytes())}
        self.file.write(json.dumps(line | {"round": server.rounds.number}) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        return model


def federation(broker: str, folder: Path, devices: int) -> Federation:
    """Deadlines for a network on which a message takes seconds."""
    policy = Policy(
        devices=max(2, devices // 2), goal=0.8, soft_deadline_s=25.0, hard_deadline_s=40.0, min_reports=2,
        resume_s=5.0, chunk_elements=CHUNK, encodings=("float32",),
    )  # fmt: skip
    layout = Layout((Tensor("parameter0", (ELEMENTS,)),))
    return Federation(
        "chaos", layout, broker, policy=policy, limits=Limits(retry_ms=2000), database=folder / "chaos.sqlite",
        initial=np.zeros(ELEMENTS, np.float32),
    )  # fmt: skip


async def run() -> None:
    """Until SIGTERM."""
    task = asyncio.ensure_future(server.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        pass
    except ConnectionError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_BROKER)


if __name__ == "__main__":
    where = Path(sys.argv[2])
    server = Server(federation(sys.argv[1], where, int(sys.argv[3])), Noted(where / "server.jsonl"))
    asyncio.run(run())
