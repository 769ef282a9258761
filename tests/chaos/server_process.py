# SPDX-License-Identifier: Apache-2.0
"""The server of the chaos run: the real one, which logs its folds before each commit.
Arguments: the broker's URL, the folder of database and ledger, devices, seconds until the closing notice.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ledger import CHUNK, ELEMENTS

from fedmote.fleet.limits import Limits
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.update import Update
from fedmote.model.layout import Layout, Model, Tensor
from fedmote.rounds.policy import Policy
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote_device import kernels

CHUNKS = -(-ELEMENTS // CHUNK)
NO_BROKER = 3


class Noted(FedAvg):
    """FedAvg that logs each fold, and durably logs all folds of a round when it makes the model."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "a")  # noqa: SIM115 (open for as long as the process)
        self.process = time.time_ns()
        self.folds: list[dict[str, Any]] = []

    def note(self, **line: Any) -> None:
        self.file.write(json.dumps(line | {"server": self.process, "round": server.rounds.number}) + "\n")
        self.file.flush()

    def begin(self, model: Model) -> Accumulator:
        self.folds = []
        return super().begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        done = super().fold(accumulator, update)
        if done:
            chunks = "".join(map(str, update.received)) if update.received is not None else "1" * CHUNKS
            fold = {"device": update.device, "crc32": kernels.crc32(update.data), "chunks": chunks}
            self.folds.append(fold)
            self.note(**fold)
        return done

    def finish(self, accumulator: Accumulator) -> Model:
        model = super().finish(accumulator)
        self.note(at=time.time(), folds=self.folds, model_crc32=kernels.crc32(model.tobytes()))
        os.fsync(self.file.fileno())
        return model


def federation(broker: str, folder: Path, devices: int, patience_s: float) -> Federation:
    """Return settings whose deadlines are in proportion to a device's transfer time on its network."""
    policy = Policy(
        devices=max(2, devices // 2), goal=0.8, soft_deadline_s=patience_s, hard_deadline_s=1.6 * patience_s,
        min_reports=2, resume_s=0.6 * patience_s, chunk_elements=CHUNK, encodings=("float32",),
    )  # fmt: skip
    layout = Layout((Tensor("parameter0", (ELEMENTS,)),))
    return Federation(
        "chaos", layout, broker, policy=policy, limits=Limits(retry_ms=2000), database=folder / "chaos.sqlite",
        initial=np.zeros(ELEMENTS, np.float32),
    )  # fmt: skip


async def run() -> None:
    """Run until SIGTERM."""
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
    server = Server(federation(sys.argv[1], where, int(sys.argv[3]), float(sys.argv[4])), Noted(where / "server.jsonl"))
    asyncio.run(run())
