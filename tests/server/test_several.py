# SPDX-License-Identifier: Apache-2.0
"""Several federations on one server: they share a broker and nothing else."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from real_broker import Broker, Devices, federation, mean

from fedmote.errors import StoreError
from fedmote.rounds.record import Record
from fedmote.server.server import Server, run_all


def write(folder: Path, name: str, ports: str = "") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(
        f'[federation]\nname = "{name.split("-")[0]}"\ndata = "{name}"\n'
        f'[model]\ntensors = [{{ name = "w", shape = [4] }}]\n{ports}'
    )
    return path


def serve(*paths: Path) -> str:
    """Run `fedmote server` as a user would; return its error output."""
    command = [str(Path(sys.executable).parent / "fedmote"), "server", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_two_models_on_one_broker(tmp_path: Path) -> None:
    """Devices of the same name in two federations are different devices; rounds of both run at the same time."""
    broker = Broker(tmp_path)
    broker.start()
    records: dict[str, list[Record]] = {"f": [], "g": []}
    servers = []
    for name, elements in (("f", 100), ("g", 70)):
        (tmp_path / name).mkdir()
        described = federation(broker.url, tmp_path / name, 3, elements, name=name)
        servers.append(Server(described, on_round=records[name].append))
    with Devices(broker.url, 3, 100) as first, Devices(broker.url, 3, 70, federation="g") as second:
        asyncio.run(asyncio.wait_for(run_all(servers, 4), 120))
        for server, devices in zip(servers, (first, second), strict=True):
            assert np.array_equal(server.model, mean(devices.trainers, 4))
    broker.stop()
    assert [[r.reported for r in records[name]] for name in "fg"] == [[3] * 4] * 2


def test_trouble_of_one_is_its_own(tmp_path: Path) -> None:
    """If one federation has no broker, the other still commits its rounds; then the error is reported."""
    broker = Broker(tmp_path)
    broker.start()
    (tmp_path / "g").mkdir()
    well = Server(federation(broker.url, tmp_path, 2))
    ill = Server(federation("mqtt://127.0.0.1:1", tmp_path / "g", 2, name="g"))
    with Devices(broker.url, 2) as devices, pytest.raises(ConnectionError, match="no MQTT broker"):
        asyncio.run(asyncio.wait_for(run_all([well, ill], 2), 120))
    broker.stop()
    assert np.array_equal(well.model, mean(devices.trainers, 2))


def test_federations_in_each_others_way_are_refused(tmp_path: Path) -> None:
    one, same = write(tmp_path, "a-1"), write(tmp_path, "a-2")
    assert "two federations have the name a; each needs one of its own" in serve(one, same)
    port = '[serial]\nports = ["/dev/ttyUSB0"]\n'
    said = serve(write(tmp_path, "b", port), write(tmp_path, "c", port))
    assert "two federations have the link /dev/ttyUSB0; each needs one of its own" in said


def test_a_service_manager_stops_it_in_order(tmp_path: Path) -> None:
    """SIGTERM stops the server cleanly, and its private broker with it."""
    command = [str(Path(sys.executable).parent / "fedmote"), "server", str(write(tmp_path, "a"))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "mqtt://127.0.0.1:" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        port = int(re.findall(r"mqtt://127\.0\.0\.1:(\d+)", said)[0])
        socket.create_connection(("127.0.0.1", port), 10).close()
        process.terminate()
        rest, complaints = process.communicate(timeout=60)
    assert process.returncode == 0 and "the last committed model is in the database" in " ".join(rest.split())
    assert complaints == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


def test_a_database_of_another_layout_stops_the_start(tmp_path: Path) -> None:
    Server(federation("mqtt://127.0.0.1:1", tmp_path, 1, 10)).store.close()
    with pytest.raises(StoreError, match="another layout"):
        Server(federation("mqtt://127.0.0.1:1", tmp_path, 1, 11))
