# SPDX-License-Identifier: Apache-2.0
"""Bytes in and out. A link knows devices by name, and nothing of rounds."""
