# SPDX-License-Identifier: Apache-2.0
"""How updates become the next model: Update, Accumulator, and the strategies, one file each.

Import from the files here: Update, Accumulator, the Strategy protocol, STRATEGIES.
A new strategy is one file in strategies/ and one line in strategies/registry.py.
This package imports model. It must never know who sent an update, or when.
"""
