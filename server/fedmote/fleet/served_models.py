# SPDX-License-Identifier: Apache-2.0
"""Committed models as devices download them: cut into chunks, for each class of devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedmote.model.layout import Model, SubLayout
from fedmote.wire.codec import encode
from fedmote_device import kernels

CLASS_SHIFT = 28  # bits of a model's version on the wire below those of the device class


@dataclass(frozen=True, slots=True)
class ClassModel:
    """What a class of devices downloads of a committed model.

    version: on the wire; the class index is in the upper four bits, so the whole model, class 0, has the model's own
    version. elements: its number. crc32: of its bytes. chunks: its ModelChunk messages.
    """

    version: int
    elements: int
    crc32: int
    chunks: list[bytes]

    @classmethod
    def of(cls, version: int, model: Model, chunk_elements: int) -> ClassModel:
        """Cut a class's model into chunks."""
        data = model.astype("<f4").tobytes()
        size = 4 * chunk_elements
        chunks = [
            encode("ModelChunk", version=version, index=i, data=data[at : at + size])
            for i, at in enumerate(range(0, len(data), size))
        ]
        return cls(version, model.size, kernels.crc32(data), chunks)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A committed model, and what each class of devices downloads of it, by class index."""

    version: int
    model: Model
    by_class: tuple[ClassModel, ...]

    @classmethod
    def of(cls, version: int, model: Model, chunk_elements: int, classes: tuple[SubLayout, ...]) -> ServedModel:
        """Cut a model for each class."""
        by_class = (
            ClassModel.of(index << CLASS_SHIFT | version, part.cut(model), chunk_elements)
            for index, part in enumerate(classes)
        )
        return cls(version, model, tuple(by_class))


class ServedModels:
    """The models that devices may download now, by version.

    publish: makes a model's chunks available on the links, (wire version, messages), or takes them back, (version, []).
    """

    def __init__(
        self, classes: tuple[SubLayout, ...], chunk_elements: int, publish: Callable[[int, list[bytes]], None]
    ) -> None:
        self.classes, self.chunk_elements, self.publish = classes, chunk_elements, publish
        self.by_version: dict[int, ServedModel] = {}

    def __contains__(self, version: int) -> bool:
        return version in self.by_version

    def __getitem__(self, version: int) -> ServedModel:
        return self.by_version[version]

    def add(self, version: int, model: Model, publish: bool = True) -> ServedModel:
        """Serve a model; publish: also make its chunks available on the links."""
        served = self.by_version[version] = ServedModel.of(version, model, self.chunk_elements, self.classes)
        if publish:
            for part in served.by_class:
                self.publish(part.version, part.chunks)
        return served

    def keep_only(self, versions: set[int]) -> None:
        """Stop serving all models but these."""
        for version in self.by_version.keys() - versions:
            for part in self.by_version.pop(version).by_class:
                self.publish(part.version, [])

    def chunk(self, wire_version: int, index: int) -> bytes | None:
        """Return a ModelChunk message; None: that model is not served, or has no such chunk."""
        served = self.by_version.get(wire_version & (1 << CLASS_SHIFT) - 1)
        class_index = wire_version >> CLASS_SHIFT
        if served is None or class_index >= len(served.by_class):
            return None
        chunks = served.by_class[class_index].chunks
        return chunks[index] if index < len(chunks) else None
