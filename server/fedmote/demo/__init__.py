# SPDX-License-Identifier: Apache-2.0
"""The demonstration: forty devices learn handwritten digits together while links break.

Import from here: Demo, Options, and simulate_digits() for `fedmote simulate` and bench.
This package imports server, simulation, faults and datasets. It must never import testing.
"""
