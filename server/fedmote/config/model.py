# SPDX-License-Identifier: Apache-2.0
"""[model]: the tensors, the widths of sub-models, and the first model."""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmote.config.arrays import read_arrays
from fedmote.config.reader import TomlReader
from fedmote.model.initial import dead_scales
from fedmote.model.layout import Layout, Model, Tensor

log = logging.getLogger(__name__)

KEYS: Final = ("tensors", "widths", "initial")
LONGEST_NAME: Final = 255  # bytes of a tensor's name; firmware takes 31 by default (FM_MAX_TENSOR_NAME)


def read_layout(reader: TomlReader) -> Layout:
    """Read the tensors, and the widths of the sub-models that device classes hold."""
    tensors = _tensors(reader)
    widths = reader.tables["model"].get("widths", [1.0])
    if not isinstance(widths, list) or not all(type(share) in (int, float) and 0 < share <= 1 for share in widths):
        raise reader.error("model.widths", f"{widths!r} must be a list of shares above 0, at most 1: [1.0, 0.5, 0.25]")
    layout = Layout(tensors, tuple(float(share) for share in widths))
    try:
        layout.classes()
    except ValueError as error:
        raise reader.error("model.widths", str(error)) from None
    return layout


def _tensors(reader: TomlReader) -> tuple[Tensor, ...]:
    listed = reader.section("model", KEYS).get("tensors")
    if not isinstance(listed, list) or not listed:
        raise reader.error("model.tensors", 'is missing; list the shared tensors: [{ name = "w", shape = [64, 10] }]')
    tensors: list[Tensor] = []
    for i, entry in enumerate(listed):
        where = f"model.tensors[{i}]"
        if not isinstance(entry, dict) or not {"name", "shape"} <= set(entry) <= {"name", "shape", "scale"}:
            raise reader.error(where, "must be { name = ..., shape = [...] }, and scale = [...] for sub-models")
        name = _name(reader, where, entry["name"], tensors)
        shape = _shape(reader, where, entry["shape"])
        tensors.append(Tensor(name, shape, _scale(reader, where, entry.get("scale"), len(shape))))
    return tuple(tensors)


def _name(reader: TomlReader, where: str, name: Any, others: list[Tensor]) -> str:
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= LONGEST_NAME or name in [t.name for t in others]:
        raise reader.error(where, f"name {name!r} must be 1 to {LONGEST_NAME} bytes and unlike the others")
    return name


def _shape(reader: TomlReader, where: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n > 0 for n in shape):
        raise reader.error(where, f"shape {shape!r} must be a list of positive integers")
    return tuple(shape)


def _scale(reader: TomlReader, where: str, scale: Any, axes: int) -> tuple[bool, ...] | None:
    if scale is None:
        return None
    if not isinstance(scale, list) or len(scale) != axes or not all(type(flag) is bool for flag in scale):
        raise reader.error(where, f"scale {scale!r} must be a list of true or false, one for each axis of shape")
    return tuple(scale)


def read_initial(reader: TomlReader, layout: Layout) -> Model | None:
    """Read the first model from a file with an array for each tensor, by name; None: no file is named."""
    name = reader.text("model", "initial", r".+", "the path of a file with the first model")
    if name is None:
        return None
    try:
        arrays = read_arrays(reader.path.parent / name)
        parts = [_first_value(arrays[tensor.name], tensor) for tensor in layout.tensors]
    except KeyError as error:
        raise reader.error("model.initial", f"{name}: has no array {error}; it has {', '.join(arrays)}") from error
    except (OSError, ValueError) as error:
        raise reader.error("model.initial", f"{name}: {error}") from error
    model = np.concatenate(parts)
    if dead := dead_scales(layout, model):
        log.warning("%s: the scales %s are 0, so their layers cannot learn", name, ", ".join(dead))
    return model


def _first_value(array: NDArray[Any], tensor: Tensor) -> Model:
    """Return a tensor's first value, flat. ValueError: the array is not one for it."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{tensor.name} holds {array.dtype}, expected real numbers")
    if array.shape != tensor.shape:
        raise ValueError(f"{tensor.name} is {array.shape}, expected {tensor.shape}")
    with np.errstate(over="ignore"):
        value = array.astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"{tensor.name} holds NaN, infinity or numbers beyond float32")
    return value.ravel()
