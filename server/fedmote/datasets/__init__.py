# SPDX-License-Identifier: Apache-2.0
"""Small data sets that ship with fedmote, functions that deal them to devices, and baselines.

Import from the files here: digits (load, split, partition, sample, WIDTHS), baselines.
This package imports NumPy alone. demo, testing and bench use it; the server must never do so.
"""
