# SPDX-License-Identifier: Apache-2.0
"""A federation of four C devices and two Python devices over brokers as their packages set them up (`make brokers`)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from fleet_thread import run_rounds
from learners import WIDTHS, Learner, blobs, forward

from fedmote.links.broker import reserve_port
from fedmote.model.layout import dense
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record
from fedmote.server.federation import Federation
from fedmote.server.server import Server
from fedmote_device import CTrainer, Device

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0
ROUNDS = 5
AEDES = """
const { Aedes } = require('aedes')
const make = Aedes && Aedes.createBroker ? Aedes.createBroker() : Promise.resolve(require('aedes')())
make.then(broker => require('net').createServer(broker.handle).listen(PORT, '127.0.0.1'))
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with reserve_port() as holder:
        return int(holder.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, folder: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run a broker until the end of the block. It is there when its port takes connections."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | (env or {}),
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def mosquitto(folder: Path) -> Iterator[str]:
    """mosquitto without a configuration: `mosquitto -p PORT`."""
    port = free_port()
    with running([shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-p", str(port)], port, folder):
        yield f"mqtt://127.0.0.1:{port}"


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """RabbitMQ with its MQTT plug-in, whose only settings here are ports and folders."""
    port, node, distribution = free_port(), free_port(), free_port()
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    (folder / "rabbitmq.conf").write_text(
        f"mqtt.listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.tcp.1 = 127.0.0.1:{node}\n"
    )
    env = {
        "HOME": str(folder), "RABBITMQ_NODENAME": f"fedmote{port}@localhost", "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder), "RABBITMQ_LOG_BASE": str(folder), "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
    }  # fmt: skip
    server = next(Path("/usr/lib/rabbitmq").glob("lib/*/sbin/rabbitmq-server"))
    with running([str(server)], port, folder, env):
        yield f"mqtt://guest:guest@127.0.0.1:{port}"


@contextmanager
def nats(folder: Path) -> Iterator[str]:
    """NATS. MQTT needs its JetStream and a server's name."""
    port = free_port()
    (folder / "nats.conf").write_text(
        f'server_name: gateway\nlisten: "127.0.0.1:{free_port()}"\njetstream {{ store_dir: "{folder}/js" }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}" }}\n'
    )
    with running([shutil.which("nats-server") or "/usr/sbin/nats-server", "-c", "nats.conf"], port, folder):
        yield f"mqtt://127.0.0.1:{port}"


@contextmanager
def aedes(folder: Path) -> Iterator[str]:
    """aedes, as the first example of its page has it."""
    port = free_port()
    (folder / "broker.js").write_text(AEDES.replace("PORT", str(port)))
    modules = {"NODE_PATH": str(ROOT / "build/aedes/node_modules")}
    with running([shutil.which("node") or "node", "broker.js"], port, folder, modules):
        yield f"mqtt://127.0.0.1:{port}"


def make_device(name: str, url: str, trainer: CTrainer | Learner, examples: int = 0) -> Device:
    """Return a device that tries again soon."""
    return Device(
        name, url, federation="f", trainer=trainer, examples=examples, backoff_ms=(100, 1000), retry_ms=(200, 2000)
    )


def make_devices(url: str) -> tuple[list[Device], list[Learner]]:
    """Return four devices that train in C and two that train in Python, and the clients of those two."""
    learners = [Learner(seed) for seed in (4, 5)]
    devices = [make_device(f"c{i}", url, CTrainer(WIDTHS, *blobs(i))) for i in range(4)]
    devices += [make_device(f"python{i}", url, learner, len(learner.x)) for i, learner in enumerate(learners)]
    return devices, learners


@pytest.mark.parametrize("broker", [mosquitto, rabbitmq, nats, aedes])
def test_a_federation_learns(broker: Callable[[Path], AbstractContextManager[str]], tmp_path: Path) -> None:
    records: list[Record] = []
    with broker(tmp_path) as url:
        server = Server(
            Federation(
                "f", dense(WIDTHS), url, training=Training(epochs=5, learning_rate=0.1),
                policy=Policy(devices=6, goal=1.0, soft_deadline_s=WAIT_S, hard_deadline_s=WAIT_S),
            ),
            on_round=records.append,
        )  # fmt: skip
        devices, learners = make_devices(url)
        started = time.monotonic()
        run_rounds(server, devices, ROUNDS, WAIT_S)
    print(f"{broker.__name__}: {ROUNDS} rounds in {time.monotonic() - started:.1f} s")
    assert [record.reported for record in records] == [6] * ROUNDS
    assert [learner.fits for learner in learners] == [ROUNDS] * 2
    x, labels = blobs(99, 300)
    model = {name: np.asarray(array) for name, array in dense(WIDTHS).arrays(server.model).items()}
    assert (forward(model, x)[1].argmax(1) == labels).mean() > 0.8
