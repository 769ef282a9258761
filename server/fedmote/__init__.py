# SPDX-License-Identifier: Apache-2.0
"""fedmote: the aggregation server and the command line."""

__version__ = "0.1.0"
