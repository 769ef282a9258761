# SPDX-License-Identifier: Apache-2.0
"""Strategies, one file each. registry.py names those that federation.toml can choose.

Import from the files here: a strategy's class from its own file, STRATEGIES from registry.
A strategy imports learning.accumulator and learning.update, and no other strategy unless it extends it.
It must never keep an update after fold(), unless its docstring says how much memory that takes.
"""
