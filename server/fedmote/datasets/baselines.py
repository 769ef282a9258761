# SPDX-License-Identifier: Apache-2.0
"""Baselines in NumPy: the network of the C trainer, trained on pooled data or on one device's data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmote.datasets.digits import Features, Labels

Weights = list[NDArray[np.float32]]


def unflatten(model: NDArray[np.float32], widths: tuple[int, ...]) -> Weights:
    """Cut a flat model into kernel and bias of each layer."""
    out: Weights = []
    at = 0
    for n_in, n_out in itertools.pairwise(widths):
        out.append(model[at : at + n_in * n_out].reshape(n_in, n_out))
        at += n_in * n_out
        out.append(model[at : at + n_out])
        at += n_out
    return out


def accuracy(model: NDArray[np.float32], widths: tuple[int, ...], x: Features, y: Labels) -> float:
    """Return the network's accuracy on `x`, 0 to 1."""
    weights = unflatten(model, widths)
    h = x
    for i in range(0, len(weights), 2):
        h = h @ weights[i] + weights[i + 1]
        if i + 2 < len(weights):
            h = np.maximum(h, 0)
    return float((h.argmax(1) == y).mean())


@dataclass(frozen=True, slots=True)
class Sgd:
    """Stochastic gradient descent. batch: examples in a mini-batch. rate: the learning rate."""

    epochs: int
    batch: int
    rate: float


def train(
    model: NDArray[np.float32], widths: tuple[int, ...], x: Features, y: Labels, sgd: Sgd, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the model after SGD with mini-batches, as the C trainer does it."""
    model = model.copy()
    weights = unflatten(model, widths)
    for _ in range(sgd.epochs):
        order = rng.permutation(len(x))
        for at in range(0, len(x), sgd.batch):
            chosen = order[at : at + sgd.batch]
            _step(weights, x[chosen], y[chosen], sgd.rate)
    return model


def _step(weights: Weights, x: Features, y: Labels, rate: float) -> None:
    activations = [x]
    for i in range(0, len(weights), 2):
        z = activations[-1] @ weights[i] + weights[i + 1]
        activations.append(np.maximum(z, 0) if i + 2 < len(weights) else z)
    logits = activations[-1] - activations[-1].max(1, keepdims=True)
    error = np.exp(logits)
    error /= error.sum(1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    for i in range(len(weights) - 2, -1, -2):
        before = activations[i // 2]
        kernel, bias = before.T @ error, error.sum(0)
        error = (error @ weights[i].T) * (before > 0)
        weights[i] -= rate * kernel
        weights[i + 1] -= rate * bias
