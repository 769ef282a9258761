# SPDX-License-Identifier: Apache-2.0
"""Reads named arrays from the files in which frameworks keep a model."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz, .safetensors, .pt or .pth file, by name. OSError, ValueError: it cannot be read."""
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
    if path.suffix == ".safetensors":
        load = _module("safetensors.numpy", path).load_file
        return dict(load(path))
    if path.suffix in (".pt", ".pth"):
        state = _module("torch", path).load(path, map_location="cpu", weights_only=True)
        return {name: tensor.detach().numpy() for name, tensor in state.items()}
    raise ValueError("must be an .npz, .safetensors, .pt or .pth file")


def _module(name: str, path: Path) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"a {path.suffix} file needs the package {package}: pip install {package}") from error
