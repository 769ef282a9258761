# SPDX-License-Identifier: Apache-2.0
"""The digits as workloads: forty devices whose links break, and a virtual fleet.

Import from the files here: Demo, Options, and simulate_digits() for `fedmote simulate` and bench.
This package imports server, simulation, faults and datasets. It must never import testing.
"""
