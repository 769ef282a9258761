# SPDX-License-Identifier: Apache-2.0
"""The server: links, fleet, rounds, tasks and store tied together on one event loop.

Import from the files here: Federation (what to run), Server, run_all(). They are public: `from fedmote import Server`.
This package imports rounds, tasks and the packages below them. Only config and the packages above it may import it.
"""
