# SPDX-License-Identifier: Apache-2.0
"""A small task, and a Python device's client that learns it with the tensors of the C trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
WIDTHS = (8, 16, 3)


def blobs(seed: int, examples: int = 60) -> tuple[Floats, NDArray[np.int64]]:
    """Return points around one centre for each of three classes, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(0, 2, (WIDTHS[-1], WIDTHS[0]))
    labels = rng.integers(0, WIDTHS[-1], examples)
    return (centres[labels] + rng.normal(0, 1, (examples, WIDTHS[0]))).astype(np.float32), labels


def forward(model: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Return the hidden layer's outputs and the classes' probabilities."""
    hidden = np.maximum(x @ model["dense0.kernel"] + model["dense0.bias"], 0)
    scores = hidden @ model["dense1.kernel"] + model["dense1.bias"]
    exps = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, exps / exps.sum(1, keepdims=True)


class Learner:
    """Gradient descent on whole data."""

    def __init__(self, seed: int) -> None:
        self.x, self.labels = blobs(seed)
        self.fits = 0

    def get_parameters(self, config: dict[str, Any]) -> dict[str, Floats]:
        """Return arrays named and shaped as the C trainer's."""
        out: dict[str, Floats] = {}
        for i in range(len(WIDTHS) - 1):
            out[f"dense{i}.kernel"] = np.zeros(WIDTHS[i : i + 2], np.float32)
            out[f"dense{i}.bias"] = np.zeros(WIDTHS[i + 1], np.float32)
        return out

    def fit(self, model: dict[str, Floats], config: dict[str, Any]) -> tuple[dict[str, Floats], int, dict[str, float]]:
        """Do 20 steps."""
        self.fits += 1
        count = len(self.x)
        _, first = forward(model, self.x)
        for _ in range(20):
            hidden, error = forward(model, self.x)
            error[np.arange(count), self.labels] -= 1
            back = (error @ model["dense1.kernel"].T) * (hidden > 0)
            gradients = {
                "dense0.kernel": self.x.T @ back, "dense0.bias": back.sum(0),
                "dense1.kernel": hidden.T @ error, "dense1.bias": error.sum(0),
            }  # fmt: skip
            model = {name: model[name] - 0.1 / count * gradients[name] for name in model}
        loss = -np.log(first[np.arange(count), self.labels]).mean()
        return model, count, {"loss": loss, "steps": 20}

    def evaluate(self, model: dict[str, Floats], config: dict[str, Any]) -> tuple[float, int, dict[str, float]]:
        """Return the accuracy on its own data."""
        _, found = forward(model, self.x)
        return 0.0, len(self.x), {"accuracy": float((found.argmax(1) == self.labels).mean())}
