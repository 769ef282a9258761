# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests of firmware: emulated devices, links that fail, federations (docs/testing_firmware.md)."""
