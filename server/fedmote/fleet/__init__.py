# SPDX-License-Identifier: Apache-2.0
"""The devices: who is connected, what they upload, who may be selected, and when they should come back.

Import from the files here: Fleet, Limits, Selection, Pace, and the coordinators that rounds and tasks implement.
Everything is a pure state machine: no I/O, no clock of its own, the time is an argument.
This package imports wire, model, learning and links.link. It must never import rounds or tasks.
"""
