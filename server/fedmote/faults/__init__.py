# SPDX-License-Identifier: Apache-2.0
"""Links that lose, delay, corrupt and cut on purpose: cables, TCP proxies, TUN devices.

Import from the files here: Cable, TcpProxy, LinkFaults, Network, and the faults they take.
This package imports links.url. testing, demo and bench use it; the server must never do so.
"""
