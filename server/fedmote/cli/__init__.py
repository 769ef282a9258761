# SPDX-License-Identifier: Apache-2.0
"""The command line, one file a command. main.py lists the commands.

A new command is one file here and one line in main.py. Errors become one line on the terminal and exit code 1.
This package may import everything. Nothing may import it.
"""
