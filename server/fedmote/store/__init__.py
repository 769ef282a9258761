# SPDX-License-Identifier: Apache-2.0
"""The database: models, the log of rounds, assignments and operators' requests, in SQLite. Never a device's update.

Import from the files here: Store, whose attributes are one file each; stored_versions() and submitted() for commands.
This package imports model and errors. It must never know who calls it: what it stores are numbers, bytes and JSON.
"""
