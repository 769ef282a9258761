# SPDX-License-Identifier: Apache-2.0
"""Small data sets that ship with fedmote, how to deal them to devices, and baselines to compare with.

Import from here: digits (load, split, partition), baselines.
This package imports NumPy alone. demo, testing, bench and `fedmote simulate` use it; the server must never do so.
"""
