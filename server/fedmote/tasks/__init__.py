# SPDX-License-Identifier: Apache-2.0
"""Tasks besides fit: evaluate a model on the devices, ask the fleet a query, roll a model out or back. One file each.

Import from the files here: the request classes, TaskRunner which runs them, to_json() and from_json().
A new task is one file here and one line in requests.py.
This package imports fleet. It must never import rounds: what it needs of them is the protocol Host in runner.py.
"""
