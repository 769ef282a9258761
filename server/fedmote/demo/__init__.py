# SPDX-License-Identifier: Apache-2.0
"""The demonstration: forty devices learn handwritten digits together."""
