# SPDX-License-Identifier: Apache-2.0
"""Models of PyTorch, as their authors wrote them, over Python devices (`make frameworks`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from fleet_thread import run_rounds
from numpy.typing import NDArray

from fedmote.datasets import digits
from fedmote.links.broker import private_broker
from fedmote.model.layout import Layout, Tensor
from fedmote.rounds.policy import Policy
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote_device import Device

WAIT_S = 200.0


class TorchClient:
    """Shares the whole state_dict of a module: weights, running statistics and counters."""

    def __init__(self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
        self.module, self.x, self.y, self.steps = module, x, y, steps
        self.fits = 0

    def get_parameters(self, config: dict[str, Any]) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy().copy() for name, tensor in self.module.state_dict().items()}

    def load(self, parameters: dict[str, NDArray[Any]]) -> None:
        self.module.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})

    def fit(self, parameters: Any, config: dict[str, Any]) -> tuple[dict[str, NDArray[Any]], int, dict[str, float]]:
        self.fits += 1
        self.load(parameters)
        self.module.train()
        optimizer = torch.optim.SGD(self.module.parameters(), lr=0.05, momentum=0.9)
        losses = []
        for batch in torch.randint(len(self.x), (self.steps, 32)):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.module(self.x[batch]), self.y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return self.get_parameters({}), len(self.x), {"loss": float(np.mean(losses)), "steps": self.steps}

    def evaluate(self, parameters: Any, config: dict[str, Any]) -> tuple[float, int, dict[str, float]]:
        self.load(parameters)
        self.module.eval()
        with torch.no_grad():
            scores = self.module(self.x)
        loss = torch.nn.functional.cross_entropy(scores, self.y).item()
        return loss, len(self.x), {"accuracy": float((scores.argmax(1) == self.y).float().mean())}


def federate(clients: list[TorchClient], rounds: int) -> tuple[dict[str, NDArray[np.float32]], list[Record]]:
    """Run rounds over one device a client, from the first client's parameters. Return the model and the records."""
    first = clients[0].get_parameters({})
    layout = Layout(tuple(Tensor(name, array.shape) for name, array in first.items()))
    initial = np.concatenate([np.ravel(array).astype(np.float32) for array in first.values()])
    records: list[Record] = []
    with private_broker() as url:
        server = Server(
            Federation(
                "f", layout, url, initial=initial,
                policy=Policy(
                    devices=len(clients), goal=1.0, chunk_elements=16384, soft_deadline_s=WAIT_S, hard_deadline_s=WAIT_S
                ),
            ),
            on_round=records.append,
        )  # fmt: skip
        devices = [
            Device(f"d{i}", url, federation="f", trainer=client, examples=len(client.x), keep_alive_s=300)
            for i, client in enumerate(clients)
        ]
        run_rounds(server, devices, rounds, WAIT_S)
    return layout.arrays(server.model), records


def make_clients(module: Callable[[], torch.nn.Module], x: Any, y: Any, count: int, steps: int) -> list[TorchClient]:
    """Deal examples out to clients, each with a module of its own."""
    return [TorchClient(module(), x[i::count], y[i::count], steps) for i in range(count)]


def test_a_resnet_18_of_torchvision() -> None:
    """122 tensors, 45 MB, BatchNorm's statistics and counters; two rounds over three devices."""
    torch.manual_seed(1)
    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    clients = make_clients(lambda: torchvision.models.resnet18(num_classes=10), x, y, count=3, steps=1)
    model, records = federate(clients, 2)
    assert [record.reported for record in records] == [3, 3]
    assert len(model) == 122 and sum(array.size for array in model.values()) > 11_000_000
    assert model["bn1.num_batches_tracked"] == 2
    assert all(np.isfinite(array).all() for array in model.values())


def test_a_network_with_batch_norm_learns_digits() -> None:
    """From PyTorch's own start. Each device has its own part of the digits."""
    torch.manual_seed(2)
    parts = [torch.from_numpy(np.ascontiguousarray(part)) for part in digits.split(np.random.default_rng(2))]
    train_x, test_x = (x.reshape(-1, 1, 8, 8) for x in parts[::2])
    train_y, test_y = (y.long() for y in parts[1::2])

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.Flatten(),
            torch.nn.Linear(512, 10),
        )  # fmt: skip

    clients = make_clients(network, train_x, train_y, count=4, steps=15)
    model, records = federate(clients, 5)
    assert [record.reported for record in records] == [4] * 5
    judge = TorchClient(network(), test_x, test_y, 0)
    state = judge.get_parameters({})
    _, _, metrics = judge.evaluate({name: model[name].astype(state[name].dtype) for name in state}, {})
    print(f"accuracy {metrics['accuracy']:.3f}")
    assert metrics["accuracy"] > 0.9
