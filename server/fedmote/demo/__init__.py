# SPDX-License-Identifier: Apache-2.0
"""The demonstration: forty devices learn handwritten digits together while links break.

Import from here: Demo, Options. Only cli/demo.py does so.
This package imports server, faults and datasets. It must never import testing.
"""
