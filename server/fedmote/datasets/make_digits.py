# SPDX-License-Identifier: Apache-2.0
"""Make digits.npz from scikit-learn's copy of the data: pip install scikit-learn, then run this file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()

np.savez_compressed(
    Path(__file__).with_name("digits.npz"), pixels=digits.data.astype(np.uint8), labels=digits.target.astype(np.uint8)
)
