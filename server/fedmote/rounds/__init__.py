# SPDX-License-Identifier: Apache-2.0
"""Rounds: select devices, send plans, wait, fold updates, commit. Synchronous and buffered (FedBuff) policies.

Import from the files here: Policy, Training, Record, and machine_for() which returns the class that runs a policy.
Time and I/O come from outside, so that tests and the simulation drive the same code.
This package imports fleet, learning and store. It must never import tasks, links or the server.
"""
