# SPDX-License-Identifier: Apache-2.0
"""Fixtures for other people's tests: federations, emulated boards, power cuts, faulty links.

Import from the files here: RunningFederation, EmulatedDevice, Board, power_cycle; pytest finds plugin.py by itself.
This package imports server, faults and datasets. It must never import demo, and demo must never import it.
"""
