# SPDX-License-Identifier: Apache-2.0
"""[mqtt] and [serial]: where devices connect. The section of a new link is read here."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any, Final

from fedmote.config.reader import TomlReader
from fedmote.links.link import LinkSettings
from fedmote.links.serial import Port, SerialSettings
from fedmote.links.url import BrokerUrl

SECTIONS: Final = {"mqtt": ("url", "ca_file"), "serial": ("ports", "baud")}
"""The sections of links, and their keys."""
BAUD: Final = (50, 20_000_000)
_DEVICE = r"(?!\.+$)[A-Za-z0-9_.-]{1,63}"


def read_broker(reader: TomlReader) -> str | None:
    """Read the broker's URL; None: there is none. A broker without passwords must be on loopback (SECURITY.md)."""
    url = reader.text("mqtt", "url", r"(?s).*", "a URL")
    if url is None:
        return None
    try:
        broker = BrokerUrl.parse(url)
    except ValueError as error:
        raise reader.error("mqtt.url", str(error)) from None
    if broker.user is None and not broker.loopback:
        with_user = str(broker).replace("//", "//user:password@")
        raise reader.error("mqtt.url", f"names no user; a broker on {broker.host} must know who speaks: {with_user}")
    return url


def read_ca_file(reader: TomlReader, broker: str | None) -> Path | None:
    """Read the certificate of the broker's authority, a path relative to the federation.toml; None: none is named."""
    name = reader.text("mqtt", "ca_file", r".+", "the path of a PEM file")
    if name is None:
        return None
    if broker is None or not broker.startswith("mqtts:"):
        raise reader.error("mqtt.ca_file", "is for TLS; the url must be mqtts://...")
    path = reader.path.parent / name
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        what = f"{path}: {error}; it must be a PEM file with the certificate of the authority"
        raise reader.error("mqtt.ca_file", what) from error
    return path


def read_links(reader: TomlReader) -> tuple[LinkSettings, ...]:
    """Read the links besides the broker's."""
    ports = _read_ports(reader)
    return (SerialSettings(ports),) if ports else ()


def _read_ports(reader: TomlReader) -> tuple[Port, ...]:
    """Read the serial ports, each a URL or { url, baud, device }, and the baud rate of those that name none."""
    section = reader.section("serial", SECTIONS["serial"])
    listed = section.get("ports", [])
    if not isinstance(listed, list) or (section and not listed):
        raise reader.error("serial.ports", 'is missing; list the ports: ["/dev/ttyUSB0", "socket://host:4000"]')
    ports: list[Port] = []
    for i, entry in enumerate(listed):
        port = _port(reader, f"serial.ports[{i}]", entry, section.get("baud", 115200))
        if port.url in [other.url for other in ports]:
            raise reader.error(f"serial.ports[{i}]", f"url {port.url!r} must be a string and unlike the others")
        ports.append(port)
    return tuple(ports)


def _port(reader: TomlReader, where: str, entry: Any, default_baud: Any) -> Port:
    table = {"url": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not set(table) <= {"url", "baud", "device"} or not table.get("url"):
        raise reader.error(where, "must be a port's name or URL, or { url = ..., baud = ..., device = ... }")
    url, baud, device = table["url"], table.get("baud", default_baud), table.get("device")
    if not isinstance(url, str):
        raise reader.error(where, f"url {url!r} must be a string and unlike the others")
    if type(baud) is not int or not BAUD[0] <= baud <= BAUD[1]:
        raise reader.error(where, f"baud {baud!r} must be an integer from {BAUD[0]} to {BAUD[1]}")
    return Port(url, baud, None if device is None else _device(reader, where, device))


def _device(reader: TomlReader, where: str, device: Any) -> str:
    if not isinstance(device, str) or not re.fullmatch(_DEVICE, device):
        raise reader.error(where, f"device {device!r} must be 1 to 63 letters, digits, _, . or -")
    return device
