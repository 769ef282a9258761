# SPDX-License-Identifier: Apache-2.0
"""A committed model as devices get it: cut into chunks, for each class of devices."""

from __future__ import annotations

from dataclasses import dataclass

from fedmote.model.layout import Model, SubLayout
from fedmote.wire.codec import encode
from fedmote_device import kernels

CLASS_SHIFT = 28  # where a device's class is in a model's version on the wire


@dataclass(frozen=True, slots=True)
class Image:
    """What a class of devices gets of a committed model: checksum and ModelChunk messages, under a version of its own.

    version: on the wire, the class in the upper four bits; class 0, the whole model, has the model's own.
    """

    version: int
    elements: int
    crc32: int
    chunks: list[bytes]

    @classmethod
    def of(cls, version: int, model: Model, chunk_elements: int) -> Image:
        """Cut a class's model into chunks."""
        data = model.astype("<f4").tobytes()
        size = 4 * chunk_elements
        chunks = [
            encode("ModelChunk", version=version, index=i, data=data[at : at + size])
            for i, at in enumerate(range(0, len(data), size))
        ]
        return cls(version, model.size, kernels.crc32(data), chunks)


@dataclass(frozen=True, slots=True)
class Base:
    """A committed model, and what each class of devices gets of it."""

    version: int
    model: Model
    images: tuple[Image, ...]

    @classmethod
    def of(cls, version: int, model: Model, chunk_elements: int, classes: tuple[SubLayout, ...]) -> Base:
        """Cut a model for each class."""
        images = (
            Image.of(size << CLASS_SHIFT | version, one.cut(model), chunk_elements) for size, one in enumerate(classes)
        )
        return cls(version, model, tuple(images))
