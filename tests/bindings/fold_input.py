# SPDX-License-Identifier: Apache-2.0
"""The chunks of one update, as kernels.fold() takes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chunks:
    """A kernels.ChunkData, field by field."""

    data: bytes | bytearray
    encoding: int
    scales: NDArray[np.float32] | None
    chunk_elements: int
    received: NDArray[np.uint8] | bytearray | None
    ranges: NDArray[np.uint32] | None
