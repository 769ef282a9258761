# SPDX-License-Identifier: Apache-2.0
"""Small data sets that ship with fedmote, functions that deal them to devices, and baselines.

Import from here: digits (load, split, partition), baselines.
This package imports NumPy alone. demo, testing, bench and `fedmote simulate` use it; the server must never do so.
"""
