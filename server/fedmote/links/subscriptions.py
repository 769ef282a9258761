# SPDX-License-Identifier: Apache-2.0
"""The server's subscriptions at a broker: whether they are granted, and what a killed server left there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt

log = logging.getLogger(__name__)


class Subscriptions:
    """Subscribes to what devices publish, and once to the retained model chunks, to remove those that nobody owns.

    owns: tells whether the server has published chunk `index` of model `version`, (version, index). A server that was
    killed could not remove its chunks. They would stay for ever, because each model has topics of its own.
    """

    def __init__(self, client: mqtt.Client, prefix: str, owns: Callable[[int, int], bool]) -> None:
        self.prefix, self.owns = prefix, owns
        self.removed = 0
        self._filters: dict[int | None, str] = {}  # by message id
        self._searched = False
        client.on_subscribe = self._on_subscribe
        client.message_callback_add(f"{prefix}model/+/+", self._on_retained)

    def subscribe(self, client: mqtt.Client) -> None:
        """Subscribe, at each connection."""
        self._ask(client, f"{self.prefix}up/+/+", 1)
        if not self._searched:
            self._ask(client, f"{self.prefix}model/+/+", 0)

    def _ask(self, client: mqtt.Client, topics: str, qos: int) -> None:
        _, message_id = client.subscribe(topics, qos=qos)
        self._filters[message_id] = topics

    def _on_subscribe(self, client: mqtt.Client, userdata: Any, message_id: int, reasons: Any, properties: Any) -> None:
        topics = self._filters.pop(message_id, "")
        refused = any(reason.is_failure for reason in reasons)
        if topics.endswith("up/+/+") and refused:
            log.error("the broker refuses the subscription to %s: no device is heard; let the server read it", topics)
        elif topics.endswith("model/+/+"):
            self._searched = True
            client.unsubscribe(topics)  # what is retained is on its way already

    def _on_retained(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        version, _, index = message.topic.removeprefix(f"{self.prefix}model/").partition("/")
        if not message.retain or not (version.isdecimal() and index.isdecimal()):
            return
        if not self.owns(int(version), int(index)):
            self.removed += 1
            client.publish(message.topic, b"", qos=1, retain=True)
