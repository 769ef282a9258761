# SPDX-License-Identifier: Apache-2.0
"""The server's cost of one update of 2,410 float32 parameters, compared with Flower and with NumPy.

Ours is the server's real path: Fleet.receive() verifies the update's UpdateChunk messages and puts the data in place,
the CRC-32 is compared, and RoundMachine.fold_update() checks for NaN and folds. A second figure is the whole
conversation, UpdateBegin to UpdateEnd, with the answers encoded. Flower's: decode RecordDict bytes, then
aggregate_arrayrecords(). NumPy's: `sum += weight * update` in place, without checks. The measurements alternate in one
run; the figures are medians.
"""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from common import BENCH, EXAMPLES, WIDTHS, flwr_python, interleave, microseconds, note, save, table

from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.rounds.synchronous import SynchronousRounds
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote.wire.codec import encode
from fedmote.wire.Encoding import Encoding
from fedmote_device import kernels

DEVICE = "device-1"
LAYOUT = dense(WIDTHS)
TURNS = 25
REPEATS = 200


class Ours:
    """One device's upload into a Fleet, ready to be repeated."""

    def __init__(self, chunk_elements: int, encoding: int) -> None:
        generator = np.random.default_rng(1)
        if encoding == Encoding.Float32:
            data = generator.standard_normal(LAYOUT.elements).astype("<f4").tobytes()
        else:
            data = generator.integers(-127, 128, LAYOUT.elements).astype(np.int8).tobytes()
        size = chunk_elements * len(data) // LAYOUT.elements
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        crc32 = zlib.crc32(data)
        self.fleet = Fleet(LAYOUT)
        model = np.zeros(LAYOUT.elements, np.float32)
        setup = RoundSetup(FedAvg(), Training(), Policy(goal=1.0, chunk_elements=chunk_elements))
        outlets = Outlets(lambda message: None, lambda version, chunks: None)
        rounds, _ = start_rounds(self.fleet, Store(":memory:", LAYOUT, model), setup, outlets)
        assert isinstance(rounds, SynchronousRounds)
        self.rounds = rounds
        self.begin = encode(
            "UpdateBegin", round=1, base_version=1, crc32=crc32, elements=LAYOUT.elements,
            chunk_elements=chunk_elements, encoding=encoding, examples=EXAMPLES, steps=2, planned_steps=2, loss=0.5,
        )  # fmt: skip
        self.chunks = [encode("UpdateChunk", round=1, index=i, scale=0.01, data=part) for i, part in enumerate(parts)]
        self.end = encode("UpdateEnd", round=1, chunks=len(parts), crc32=crc32)
        hello = encode(
            "Hello", device_id=DEVICE, boot=1, elements=LAYOUT.elements, layout_crc32=LAYOUT.crc32, examples=EXAMPLES
        )
        self.receive(hello)
        self.rounds.tick(0.0)  # send the plan; the round stays open
        self.conversation()
        if self.rounds.accumulator.whole != EXAMPLES:
            raise RuntimeError(f"the update was not folded: {self.fleet.counters}")
        # An upload that is never ended by a message, so that fold() can end it each time.
        self.receive(self.begin)
        slot = self.fleet.uploads.slots.get(DEVICE)
        if slot is None:
            raise RuntimeError("no slot was opened")
        self.slot = slot

    def receive(self, message: bytes) -> None:
        """Pass a message to the server, as a link does."""
        self.fleet.receive(DEVICE, message, 0.0, self.link)

    @staticmethod
    def link(device: str, message: bytes) -> None:
        """Discard the server's answer, in place of a link."""

    def fold(self) -> None:
        """Measure the path of the elements: verify chunks, put them in place, compare the checksum, fold."""
        for chunk in self.chunks:
            self.receive(chunk)
        update = self.slot.update
        if kernels.crc32(update.data) != self.slot.crc32:
            raise RuntimeError("wrong checksum")
        if self.rounds.fold_update(update, self.slot.crc32) is not None:
            raise RuntimeError("the update was refused")
        self.again()

    def conversation(self) -> None:
        """Measure all messages of an upload, with the answers encoded."""
        self.receive(self.begin)
        for chunk in self.chunks:
            self.receive(chunk)
        self.receive(self.end)
        self.again()

    def again(self) -> None:
        """Reset the round, so that the same device's update counts again."""
        self.rounds.receipts.clear()
        self.rounds.cohort.outstanding.add(DEVICE)


class Flower:
    """Flower's measurements, in their own interpreter: send a word, read microseconds."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, BENCH / "flwr" / "fold.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, word: str) -> float:
        """Measure `word` (see bench/flwr/fold.py)."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("no pipes")
        self.process.stdin.write(word + "\n")
        return float(self.process.stdout.readline())

    def __enter__(self) -> Flower:
        """Return self; __init__ has started the interpreter."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the other interpreter."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=10)


def numpy_sum() -> Callable[[], None]:
    """Measure a weighted sum in place, without checks."""
    update = np.random.default_rng(1).standard_normal(LAYOUT.elements).astype(np.float32)
    total, scratch = np.zeros_like(update), np.empty_like(update)
    weight = np.float32(EXAMPLES)

    def add() -> None:
        np.multiply(update, weight, out=scratch)
        np.add(total, scratch, out=total)

    return add


def measure(flower: Flower | None) -> dict[str, float]:
    """All medians, in microseconds."""
    split, whole = Ours(1024, Encoding.Float32), Ours(LAYOUT.elements, Encoding.Float32)
    small = Ours(4096, Encoding.Int8)
    bare = numpy_sum()
    what = {
        "fold, chunks of 4 KiB": lambda: microseconds(split.fold, REPEATS),
        "fold, one chunk": lambda: microseconds(whole.fold, REPEATS),
        "fold, int8": lambda: microseconds(small.fold, REPEATS),
        "conversation, chunks of 4 KiB": lambda: microseconds(split.conversation, REPEATS // 4),
        "conversation, one chunk": lambda: microseconds(whole.conversation, REPEATS // 4),
        "numpy": lambda: microseconds(bare, REPEATS),
    }
    if flower is not None:
        for word in ("decode", "numpy", "aggregate", "aggregate10"):
            what[f"flwr {word}"] = partial(flower.ask, word)
    return interleave(what, TURNS)


def show(medians: dict[str, float]) -> dict[str, float]:
    """Print medians and ratios; return the ratios."""
    numpy = medians["numpy"]
    one = medians.get("flwr decode", 0.0) + medians.get("flwr aggregate", 0.0)
    ten = medians.get("flwr decode", 0.0) + medians.get("flwr aggregate10", 0.0)
    rows: list[tuple[str, ...]] = [("median of one update of 2,410 parameters", "us", "flwr / ours", "ours / NumPy")]
    ratios = {}
    for name in [name for name in medians if name.startswith(("fold", "conversation"))]:
        value = medians[name]
        ratios[f"{name}: ours / NumPy"] = value / numpy
        if one:
            ratios[f"{name}: flwr / ours"] = one / value
        rows.append((name, f"{value:.1f}", f"{one / value:.1f}" if one else "-", f"{value / numpy:.1f}"))
    if one:
        ratios["flwr / NumPy"] = one / numpy
        rows += [(name, f"{medians[name]:.1f}") for name in ("flwr decode", "flwr aggregate")]
        rows.append(("flwr decode + aggregate", f"{one:.1f}", "", f"{one / numpy:.1f}"))
        rows.append(("flwr decode + a tenth of aggregate of ten", f"{ten:.1f}", "", f"{ten / numpy:.1f}"))
        rows.append(("flwr Array.numpy(), within aggregate", f"{medians['flwr numpy']:.1f}"))
    rows.append(("NumPy, weighted sum in place", f"{numpy:.1f}", "", "1.0"))
    table("Fold: the server's cost of an update", rows)
    return ratios


def main() -> None:
    python = flwr_python()
    if python is None:
        medians = measure(None)
    else:
        with Flower(str(python)) as flower:
            medians = measure(flower)
    ratios = show(medians)
    note(
        "fold: verify, put in place, CRC-32, check for NaN, weigh in. conversation: UpdateBegin to UpdateEnd, answered."
    )
    save("fold", {"microseconds": medians, "ratios": ratios})


if __name__ == "__main__":
    main()
