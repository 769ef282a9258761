# SPDX-License-Identifier: Apache-2.0
"""FedAvg and FedNova on quadratics, through the server's real session and round: the points of convergence.

Device i minimises h_i / 2 (x - e_i)^2 by tau_i gradient steps of size eta, so a round takes it from x to
(1 - K_i) x + K_i e_i with K_i = 1 - (1 - eta h_i)^tau_i. With p_i its share of the examples, FedAvg converges to
sum(p K e) / sum(p K) and FedNova to sum(p (K / tau) e) / sum(p (K / tau)) (Wang et al. 2020, arXiv:2007.07481, sec. 3).
The optimum is sum(p h e) / sum(p h). Each element of the model is a problem of its own.

The wire and the model are float32, whose resolution near 0.01 is 1e-9. So the e_i are small, and 1e-9 is absolute.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmote.fleet.fleet import Fleet
from fedmote.learning.strategies.fedavg import FedAvg
from fedmote.learning.strategies.fednova import FedNova
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.server.assembly import start_rounds
from fedmote.store.store import Store
from fedmote.wire import codec

Floats = NDArray[np.float64]
ELEMENTS = 24
LAYOUT = Layout((Tensor("x", (ELEMENTS,)),))


@dataclass
class Fields:
    """Curvatures h and optima e [devices, ELEMENTS], examples and steps [devices]."""

    h: Floats
    e: Floats
    examples: NDArray[np.int64]
    tau: NDArray[np.int64]

    @classmethod
    def draw(cls, seed: int, devices: int = 5) -> Fields:
        """Draw random fields."""
        rng = np.random.default_rng(seed)
        shape = (devices, ELEMENTS)
        return cls(
            rng.uniform(0.2, 2.0, shape), rng.normal(0, 2e-3, shape), rng.integers(1, 1000, devices),
            rng.integers(1, 9, devices),
        )  # fmt: skip

    def pulls(self, eta: float) -> Floats:
        """Return the K_i: the share of its distance that a device covers in a round."""
        return 1 - (1 - eta * self.h) ** self.tau[:, None]

    def mean(self, weights: Floats) -> Floats:
        """Return the mean of the optima, weighted by examples and `weights`."""
        p = self.examples[:, None] * weights
        return np.asarray((p * self.e).sum(0) / p.sum(0))

    @property
    def optimum(self) -> Floats:
        """Return the minimum of the sum of all quadratics."""
        return self.mean(self.h)


def converge(fields: Fields, strategy: FedAvg | FedNova, eta: float, idle: int = 0) -> Floats:
    """Run rounds until the model no longer changes. In each, `idle` further devices withdraw without a step."""
    fleet = Fleet(LAYOUT)
    names = [f"d{i}" for i in range(len(fields.tau) + idle)]
    policy = Policy(devices=len(names), goal=1.0, chunk_elements=16, encodings=("float32",))
    store = Store(":memory:", LAYOUT, np.zeros(ELEMENTS, np.float32))
    outlets = Outlets(lambda message: None, lambda version, chunks: None)
    rounds, _ = start_rounds(fleet, store, RoundSetup(strategy, Training(), policy), outlets)
    pulls = fields.pulls(eta)

    def answer(device: str, message: bytes) -> None:
        """Discard the server's answer."""

    def hear(name: str, message: str, **values: int | bytes | str) -> None:
        fleet.receive(name, codec.encode(message, **values), 0.0, answer)

    for name in names:
        hear(name, "Hello", device_id=name, elements=ELEMENTS, layout_crc32=LAYOUT.crc32)
    for _ in range(1000):
        rounds.tick(0.0)
        before, number = rounds.model, rounds.number
        for i, name in enumerate(names):
            if i >= len(fields.tau):
                hear(name, "Withdraw", round=number, reason=4)
                continue
            x = before.astype(np.float64)
            data = (x + pulls[i] * (fields.e[i] - x)).astype("<f4").tobytes()
            crc32, steps = zlib.crc32(data), int(fields.tau[i])
            hear(name, "UpdateBegin", round=number, base_version=rounds.version, crc32=crc32, elements=ELEMENTS,
                 chunk_elements=16, examples=int(fields.examples[i]), steps=steps, planned_steps=steps)  # fmt: skip
            hear(name, "UpdateChunk", round=number, index=0, data=data[:64])
            hear(name, "UpdateChunk", round=number, index=1, data=data[64:])
            hear(name, "UpdateEnd", round=number, chunks=2, crc32=crc32)
        rounds.tick(0.0)
        assert rounds.number == number + 1
        if np.abs(before - rounds.model).max() < 2e-10:  # the resolution of float32 there
            break
    return rounds.model.astype(np.float64)


ETAS = (0.16, 0.08, 0.04, 0.02, 0.01)


def distance(fields: Fields, strategy: FedAvg | FedNova, eta: float) -> float:
    """Return the distance between optimum and the strategy's point of convergence."""
    return float(np.linalg.norm(converge(fields, strategy, eta) - fields.optimum))


def main() -> None:
    """Print and plot the distances."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fields = Fields.draw(100)
    figure, axes = pyplot.subplots(figsize=(6.4, 4))
    print("distance to the optimum, in units of the devices' own distance to it")
    scale = float(np.linalg.norm(fields.e - fields.optimum, axis=1).mean())
    print("| eta | " + " | ".join(f"{eta:g}" for eta in ETAS) + " |\n|---|" + "---|" * len(ETAS))
    for name, strategy in (("FedAvg", FedAvg()), ("FedNova", FedNova())):
        measured = [distance(fields, strategy, eta) / scale for eta in ETAS]
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in measured) + " |")
        axes.loglog(ETAS, measured, marker="o", label=name)
    axes.loglog(ETAS, [measured[-1] * eta / ETAS[-1] for eta in ETAS], color="gray", linestyle=":", label="as eta")
    axes.set(xlabel="step size eta", ylabel="distance to the optimum / devices' own")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    path = Path(__file__).resolve().parent.parent / "docs" / "img" / "fednova.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
