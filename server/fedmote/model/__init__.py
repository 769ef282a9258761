# SPDX-License-Identifier: Apache-2.0
"""The model as data: its tensors and their order, sub-models, encodings of an update, and first models.

Import from the files here: Layout, Tensor, SubLayout, ENCODINGS, initial models.
This package imports only fedmote_device. It must never know the wire, devices or rounds.
"""
