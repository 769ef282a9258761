# SPDX-License-Identifier: Apache-2.0
"""A private mosquitto on loopback, for federations that bring no broker of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fedmote.errors import BrokerError

START_S = 60.0  # a mosquitto that fails ends by itself, so only an overloaded machine waits this long
LARGEST_MESSAGE = 256 * 1024  # bytes; a chunk of 16,384 elements has a quarter of that
SERVER = "server"  # the user that the server is
_CONFIG = """\
listener {port} {host}
allow_anonymous true
message_size_limit {size}
persistence false
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
log_dest file {log}
"""
_PROTECTION = """\
password_file {folder}/passwords
acl_file {folder}/acl
"""
# Devices are anonymous. What is said to all devices, and the model, comes from the server alone.
_ACL = f"""\
topic write fm/1/+/up/#
topic read fm/1/+/dn/#
topic read fm/1/+/all
topic read fm/1/+/model/#
user {SERVER}
topic readwrite fm/1/#
"""


class PrivateUrl(str):
    """The URL of a private broker for devices. server_url: the URL for the server, with user and password if needed."""

    server_url: str


def _executable() -> str:
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BrokerError(
            "no mosquitto found. Install it (Debian, Ubuntu: sudo apt-get install mosquitto; macOS: brew install "
            "mosquitto) or name a broker that runs already"
        )
    return found


def reserve_port(host: str = "127.0.0.1") -> socket.socket:
    """Return a socket bound to a free port. While it is open, the system gives that port to no other socket. On Linux a
    broker can still listen there, since both set SO_REUSEADDR.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((host, 0))
    return holder


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _protect(folder: Path, config: Path, url: str) -> str:
    """Write access rules, and the password of the server; return the server's URL."""
    password, tool = secrets.token_urlsafe(24), shutil.which("mosquitto_passwd")
    if tool is None:
        raise BrokerError("no mosquitto_passwd found; it comes with mosquitto (Debian: apt-get install mosquitto)")
    passwords = folder / "passwords"
    passwords.write_text(f"{SERVER}:{password}\n")
    subprocess.run([tool, "-U", passwords], check=True, capture_output=True)  # replaces the password by its hash
    (folder / "acl").write_text(_ACL)
    for path in (passwords, folder / "acl"):
        path.chmod(0o644)  # hashes and rules; mosquitto may be another user
    with config.open("a") as file:
        file.write(_PROTECTION.format(folder=folder))
    return url.replace("//", f"//{SERVER}:{password}@")


@contextlib.contextmanager
def private_broker(
    timeout_s: float = START_S, host: str = "127.0.0.1", protected: bool = False
) -> Iterator[PrivateUrl]:
    """Run a mosquitto for as long as the context lasts; yield its URL, mqtt://host:port.

    host: an address of this machine. It accepts anonymous clients, so use another than loopback only in tests.
    protected: only a client that connects by PrivateUrl.server_url may publish models and messages to devices.
    """
    executable = _executable()
    with tempfile.TemporaryDirectory(prefix="fedmote-broker-") as folder, reserve_port(host) as holder:
        port, log = int(holder.getsockname()[1]), Path(folder) / "log"
        if sys.platform != "linux":
            holder.close()
        os.chmod(folder, 0o755)  # started as root, mosquitto becomes another user
        log.touch()
        log.chmod(0o666)
        config = Path(folder) / "mosquitto.conf"
        config.write_text(_CONFIG.format(host=host, port=port, log=log, size=LARGEST_MESSAGE))
        url = PrivateUrl(f"mqtt://{host}:{port}")
        url.server_url = _protect(Path(folder), config, url) if protected else url
        process = subprocess.Popen([executable, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + timeout_s
            while not _listens(host, port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BrokerError(f"mosquitto did not start: {log.read_text().strip()[-500:] or 'no log'}")
                time.sleep(0.01)
            yield url
        finally:
            process.terminate()
            process.wait()
