# SPDX-License-Identifier: Apache-2.0
"""The wire: generated FlatBuffers classes, and the codec that encodes and verifies messages with them.

CamelCase files are made by csdk/tools/generate_codec.py from schema/fedmote.fbs; do not edit them. codec.py is ours.
Import from the files here: encode() and decode(), message classes, enums.
This package imports only fedmote_device. It must never know a link, a session or a round.
"""
