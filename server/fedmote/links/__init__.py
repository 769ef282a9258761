# SPDX-License-Identifier: Apache-2.0
"""Links: messages to and from devices, one file each, and the broker's URL.

Import from the files here: Link, LinkSettings, Receive, MqttSettings, SerialSettings, Port, BrokerUrl, private_broker.
A new link is one file here with two classes, which implement the protocols Link and LinkSettings.
This package imports wire and the device library's links. It must never know sessions or rounds.
"""
