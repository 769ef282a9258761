# SPDX-License-Identifier: Apache-2.0
"""What one hostile device costs 20 honest ones: rounds a second, the model, the server's memory and its log.

Each attack runs for --seconds beside the same fleet, over a real broker; the first row has no attack. The model's
column is the distance from the mean of the honest devices' targets, relative to its norm. Honest devices move the model
a tenth of the way to their targets in each round; the hostile one that claims a million examples sends a target of its
own. Log lines are those at WARNING and above. "!" marks what does not hold: half the rounds, 1 % of the model, 20 % of
the memory, 100 lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from fedmote.links.broker import private_broker
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote.wire import codec
from fedmote.wire.Plan import Plan
from fedmote_device import Device, run_many

HONEST, ELEMENTS, EXAMPLES = 20, 4000, 50
LAYOUT = Layout((Tensor("parameter0", (ELEMENTS,)),))
RATE = 2000  # messages a second of the attacks that flood
Floats = NDArray[np.float32]


def target(index: int) -> Floats:
    """Return what a device's data want the model to be."""
    common = np.random.default_rng(1000).normal(0, 1, ELEMENTS)
    return (common + 0.3 * np.random.default_rng(index).normal(0, 1, ELEMENTS)).astype(np.float32)


class Honest:
    """Moves the model a tenth of the way to its target."""

    def __init__(self, index: int) -> None:
        self.target = target(index)

    def get_parameters(self, config: dict[str, Any]) -> list[Floats]:
        """Return the shape."""
        return [self.target]

    def fit(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[list[Floats], int, dict[str, float]]:
        """Train."""
        return [parameters[0] + np.float32(0.1) * (self.target - parameters[0])], EXAMPLES, {"loss": 1.0}

    def evaluate(self, parameters: list[Floats], config: dict[str, Any]) -> tuple[float, int, dict[str, float]]:
        """Return nothing of interest."""
        return 1.0, EXAMPLES, {}


def run_honest(url: str) -> None:
    """Be the honest fleet until killed."""
    devices = [
        Device(f"honest{i}", url, federation="f", trainer=Honest(i), examples=EXAMPLES, seed=i + 1)
        for i in range(HONEST)
    ]
    run_many(devices, lambda: False)


def memory_kib() -> int:
    """Return the resident memory of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def run_server(url: str, seconds: float, out: Path) -> None:
    """Serve for `seconds` after the first commit. Write what the row needs."""
    logging.basicConfig(level=logging.WARNING)
    records: list[Record] = []
    federation = Federation("f", LAYOUT, url, policy=Policy(devices=HONEST))
    server = Server(federation, on_round=records.append)

    async def serve() -> None:
        task = asyncio.create_task(server.run(ready=lambda: print("ready", flush=True)))
        deadline = time.monotonic() + 60
        while not records and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        first = len(records)
        await asyncio.wait({task}, timeout=seconds)
        row = {"rounds": (len(records) - first) / seconds, "kib": memory_kib(), "model": server.model.tolist()}
        out.write_text(json.dumps(row))
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(serve())


class Hostile:
    """One device that speaks the protocol as it likes.

    on_plan: what it does with a plan. on_tick: what it does all the time, RATE times a second.
    """

    def __init__(self, url: str, on_plan: Callable[[Hostile, Plan], None], on_tick: Callable[[Hostile], None]) -> None:
        self.on_plan, self.on_tick = on_plan, on_tick
        self.kept: list[bytes] = []
        self.turn = 0
        self.random = np.random.default_rng(7)
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="f.hostile")
        self.client.on_connect = self._connected
        self.client.on_message = self._heard
        host, port = url.removeprefix("mqtt://").split(":")
        self.client.connect(host, int(port))
        self.client.loop_start()

    def _connected(self, *_: Any) -> None:
        self.client.subscribe([("fm/1/f/dn/hostile", 1), ("fm/1/f/all", 1)])
        self.hello("hostile")

    def _heard(self, client: Any, user: Any, message: mqtt.MQTTMessage) -> None:
        body = codec.decode(bytes(message.payload))
        if isinstance(body, Plan):
            self.on_plan(self, body)

    def hello(self, name: str) -> None:
        """Greet under a name."""
        fields: dict[str, Any] = {"elements": ELEMENTS, "layout_crc32": LAYOUT.crc32, "examples": EXAMPLES}
        self.say(codec.encode("Hello", device_id=name, boot=1, **fields), name)

    def say(self, message: bytes, name: str = "hostile") -> None:
        """Publish a message to the server."""
        self.client.publish(f"fm/1/f/up/{zlib.crc32(name.encode()) & 255}/{name}", message)

    def update(
        self, plan: Plan, values: Floats, *, examples: int = EXAMPLES, wrong: int = 0, chunks: int | None = None
    ) -> list[bytes]:
        """Return the messages of an update; `chunks`: only so many chunks, and no end."""
        size = plan.UpdateChunkElements()
        data = values.astype("<f4")
        crc32 = zlib.crc32(data.tobytes()) ^ wrong
        parts = [data[at : at + size].tobytes() for at in range(0, ELEMENTS, size)]
        number = plan.Round()
        messages = [
            codec.encode(
                "UpdateBegin", round=number, base_version=plan.ModelVersion(), base_crc32=plan.ModelCrc32(),
                crc32=crc32, elements=ELEMENTS, chunk_elements=size, examples=examples, steps=1, planned_steps=1,
                loss=1.0,
            )
        ]  # fmt: skip
        for i, part in enumerate(parts[:chunks]):
            messages.append(codec.encode("UpdateChunk", round=number, index=i, data=part))
        if chunks is None:
            messages.append(codec.encode("UpdateEnd", round=number, chunks=len(parts), crc32=crc32))
        return messages

    def say_all(self, messages: list[bytes]) -> None:
        """Publish messages in order."""
        for message in messages:
            self.say(message)

    def run(self, ended: threading.Event) -> None:
        """Flood, if the attack is a flood, until the end."""
        while not ended.wait(0.01):
            for _ in range(RATE // 100):
                self.on_tick(self)
        self.client.disconnect()
        self.client.loop_stop()


def nothing(hostile: Hostile, plan: Plan | None = None) -> None:
    """Do nothing."""


def sends(value: float | None = None, **options: Any) -> Callable[[Hostile, Plan], None]:
    """Answer each plan with an update of one value, or of its own target."""

    def answer(hostile: Hostile, plan: Plan) -> None:
        values = target(HONEST) if value is None else np.full(ELEMENTS, value, np.float32)
        hostile.say_all(hostile.update(plan, values, **options))

    return answer


def garbage(hostile: Hostile) -> None:
    """Send bytes of no meaning, and each tenth time the start of a valid message."""
    noise: bytes = hostile.random.bytes(int(hostile.random.integers(1, 300)))
    hostile.turn += 1
    hostile.say(codec.encode("UpdateEnd", round=1, chunks=1, crc32=1)[:30] + noise if hostile.turn % 10 == 0 else noise)


def new_name(hostile: Hostile) -> None:
    """Greet under a name that was never heard."""
    hostile.turn += 1
    hostile.hello(f"stranger{hostile.turn}")


def keep(hostile: Hostile, plan: Plan) -> None:
    """Answer the first plan as an honest device does, and keep what was said."""
    if not hostile.kept:
        hostile.kept = hostile.update(plan, target(HONEST))
        hostile.say_all(hostile.kept)


def replay(hostile: Hostile) -> None:
    """Say the next kept message again."""
    if hostile.kept:
        hostile.turn += 1
        hostile.say(hostile.kept[hostile.turn % len(hostile.kept)])


Attack = tuple[Callable[[Hostile, Plan], None], Callable[[Hostile], None]]
ATTACKS: dict[str, Attack] = {
    "huge values": (sends(3e38), nothing),
    "a million examples": (sends(examples=1_000_000), nothing),
    "NaN": (sends(float("nan")), nothing),
    "zero examples": (sends(examples=0), nothing),
    "wrong CRC": (sends(wrong=1), nothing),
    "silence": (nothing, nothing),
    "one chunk": (sends(1e30, chunks=1), nothing),
    "garbage": (nothing, garbage),
    "new names": (nothing, new_name),
    "replay": (keep, replay),
}


@contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run this file with other arguments for as long as the block."""
    with log.open("wb") as file:
        child = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, stderr=file)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def measure(attack: Attack | None, seconds: float) -> dict[str, Any]:
    """Run one row."""
    with tempfile.TemporaryDirectory() as name, private_broker() as url:
        folder = Path(name)
        log, out = folder / "log", folder / "out"
        with process("--serve", url, str(seconds), str(out), log=log) as server:
            if not server.stdout or not server.stdout.readline():  # it says when it hears devices
                raise RuntimeError(log.read_text())
            ended = threading.Event()
            threads = [] if attack is None else [threading.Thread(target=Hostile(url, *attack).run, args=(ended,))]
            with process("--honest", url, log=folder / "honest"):
                for thread in threads:
                    thread.start()
                server.wait(seconds + 90)
                ended.set()
                for thread in threads:
                    thread.join()
        row: dict[str, Any] = json.loads(out.read_text())
        row["lines"] = len(log.read_text().splitlines())
    honest = np.mean([target(i) for i in range(HONEST)], 0)
    row["off"] = float(np.linalg.norm(np.array(row["model"]) - honest) / np.linalg.norm(honest))
    return row


def show(name: str, row: dict[str, Any], peace: dict[str, Any]) -> None:
    """Print one row beside the one without an attack."""
    rounds, memory = row["rounds"] / max(peace["rounds"], 1e-9), row["kib"] / peace["kib"]
    limits = [
        (f"{row['rounds']:7.1f}/s {rounds:5.2f}", rounds >= 0.5),
        (f"{100 * row['off']:9.2f} %", row["off"] <= 0.01),
        (f"{row['kib'] / 1024:7.0f} MiB {memory:5.2f}", memory <= 1.2),
        (f"{row['lines']:6d} lines", row["lines"] < 100),
    ]
    print(f"{name:20}" + " ".join(text + (" " if holds else "!") for text, holds in limits), flush=True)


def main() -> None:
    """Run all rows, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--serve", nargs=3)
    parser.add_argument("--honest")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    arguments = parser.parse_args()
    if arguments.serve:
        run_server(arguments.serve[0], float(arguments.serve[1]), Path(arguments.serve[2]))
    elif arguments.honest:
        run_honest(arguments.honest)
    else:
        peace = measure(None, arguments.seconds)
        show("none", peace, peace)
        for name in arguments.attacks or ATTACKS:
            show(name, measure(ATTACKS[name], arguments.seconds), peace)


if __name__ == "__main__":
    main()
