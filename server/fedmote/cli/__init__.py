# SPDX-License-Identifier: Apache-2.0
"""The command line, one file a command. main.py lists the commands.

A new command is one file here and one line in main.py. It raises the errors of errors.py; main.py prints them.
This package may import everything. Nothing may import it.
"""
