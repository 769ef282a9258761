# SPDX-License-Identifier: Apache-2.0
"""Virtual days: the real C client and the real rounds on one virtual clock, with modelled links and batteries."""
