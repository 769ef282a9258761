# SPDX-License-Identifier: Apache-2.0
"""Links: messages to and from devices, one file each, and the broker's URL.

Import from here: Link, Send, Receive, MqttLink, SerialPorts, Port, BrokerUrl, private_broker.
A new link is one file here that implements the protocol Link, and one line in server/links.py.
This package imports wire and the device library's links. It must never know sessions or rounds.
"""
