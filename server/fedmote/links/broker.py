# SPDX-License-Identifier: Apache-2.0
"""A private mosquitto on loopback, for federations that bring no broker of their own."""

from __future__ import annotations

import contextlib
import os
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
_CONFIG = """\
listener {port} {host}
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
log_dest file {log}
"""


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


@contextlib.contextmanager
def private_broker(timeout_s: float = START_S, host: str = "127.0.0.1") -> Iterator[str]:
    """Run a mosquitto for as long as the context lasts; yield its URL, mqtt://host:port.

    host: an address of this machine. It accepts anonymous clients, so use another than loopback only in tests.
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
        config.write_text(_CONFIG.format(host=host, port=port, log=log))
        process = subprocess.Popen([executable, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + timeout_s
            while not _listens(host, port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BrokerError(f"mosquitto did not start: {log.read_text().strip()[-500:] or 'no log'}")
                time.sleep(0.01)
            yield f"mqtt://{host}:{port}"
        finally:
            process.terminate()
            process.wait()
