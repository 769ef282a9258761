# SPDX-License-Identifier: Apache-2.0
"""A Flower app without work, for measuring rounds."""
