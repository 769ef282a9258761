# SPDX-License-Identifier: Apache-2.0
"""A broker's URL: its address, and the user and password for it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

PORTS = {"mqtt": 1883, "mqtts": 8883}
EXPECTED = "expected mqtt://[user:password@]host[:port], or mqtts:// for TLS"


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """The parts of a broker's URL. str() shows neither user nor password, repr() no password."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> BrokerUrl:
        """Parse a URL, decoding %xx in user and password. ValueError: what is wrong, without the password."""
        parts = _split(url)
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        if password is not None and user is None:
            raise ValueError("a password needs a user before it")
        return cls(parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme], user, password)

    def __str__(self) -> str:
        """Return the URL without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether the broker is on this machine's loopback interface."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _split(url: str) -> SplitResult:
    """Split a URL and check all parts but user and password. ValueError: what is wrong."""
    try:
        parts = urlsplit(url)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{EXPECTED}; in a password, / is %2F, # is %23, ? is %3F, @ is %40")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(EXPECTED) else f"{EXPECTED}: {message}") from None
    if parts.scheme not in PORTS or not host or re.search(r"\s", url):
        raise ValueError(EXPECTED)
    if port == 0:
        raise ValueError("port 0 is no port; leave it out for the usual one")
    return parts
