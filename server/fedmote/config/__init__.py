# SPDX-License-Identifier: Apache-2.0
"""federation.toml: text to typed settings, with errors that name the file, the key and the way out.

Import from the files here: load(), Settings.
This package imports the settings classes of fleet, rounds, tasks and links. It must never start anything.
"""
