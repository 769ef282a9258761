# SPDX-License-Identifier: Apache-2.0
"""Virtual devices on a virtual clock: the real C client and the real rounds, with modelled links and batteries.

Import from the files here: Simulation, ServerSettings, Workload, Population, DeviceClass, FleetSettings.
The engine knows no data set: the caller brings a Workload, as demo brings the digits.
This package imports config, server and the packages below them. Only demo, cli, bench and tests may import it.
"""
