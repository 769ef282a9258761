# SPDX-License-Identifier: Apache-2.0
"""The server on a TLS-only port of a real mosquitto: what it accepts, and what it refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority, Certificate
from real_broker import Broker, Devices, federation, mean, serve

from fedmote.server import Federation, Server


def over_tls(broker: Broker, folder: Path, authority: Authority, count: int) -> Federation:
    return replace(federation(broker.tls_url, folder, count), ca_file=authority.file)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_rounds_over_tls(tmp_path: Path, authority: Authority) -> None:
    """Server over TLS, devices on the other port: rounds as ever, also when several messages share a TLS record."""
    broker = Broker(tmp_path, tls=authority.issue("localhost"))
    broker.start()
    try:
        server = Server(over_tls(broker, tmp_path, authority, 8))
        with Devices(broker.url, 8) as devices:
            asyncio.run(serve(server, 3))
        assert server.model.tobytes() == mean(devices.trainers, 3).tobytes()
        assert devices.fits == [[1, 2, 3]] * 8
    finally:
        broker.stop()


def test_the_connection_heals(tmp_path: Path, authority: Authority) -> None:
    """A broker that restarts is found again, over TLS as before."""
    broker = Broker(tmp_path, persistent=True, tls=authority.issue("localhost"))
    broker.start()

    async def restart() -> None:
        broker.stop()
        broker.start()

    try:
        server = Server(over_tls(broker, tmp_path, authority, 1))
        with Devices(broker.url, 1) as devices:
            asyncio.run(serve(server, 2, restart))
        assert server.model.tobytes() == mean(devices.trainers, 2).tobytes()
    finally:
        broker.stop()


def refused(tmp_path: Path, shown: Certificate, trusted: Authority) -> str:
    """Start a server that must not get through; what it said."""
    broker = Broker(tmp_path, tls=shown)
    broker.start()
    try:
        with pytest.raises(ConnectionError) as caught:
            asyncio.run(Server(over_tls(broker, tmp_path, trusted, 1)).run(1))
    finally:
        broker.stop()
    log = (tmp_path / "log").read_text()
    assert f"on port {broker.tls_port}" in log
    assert "New client connected" not in log
    return str(caught.value)


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path / "other")
    said = refused(tmp_path, other.issue("localhost"), authority)
    assert "no TLS with the MQTT broker at localhost" in said and "unable to get local issuer certificate" in said


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, authority: Authority) -> None:
    said = refused(tmp_path, authority.issue("elsewhere.example"), authority)
    assert "Hostname mismatch" in said and "must be for localhost" in said


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    assert "certificate has expired" in refused(tmp_path, authority.issue("localhost", days=-1), authority)


def test_without_a_file_the_systems_authorities_count(tmp_path: Path, authority: Authority) -> None:
    """None of them signed this certificate."""
    broker = Broker(tmp_path, tls=authority.issue("localhost"))
    broker.start()
    try:
        with pytest.raises(ConnectionError, match="no TLS"):
            asyncio.run(Server(federation(broker.tls_url, tmp_path, 1)).run(1))
    finally:
        broker.stop()


def test_a_file_without_tls_is_a_mistake(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(ValueError, match="a CA file is for mqtts"):
        asyncio.run(Server(replace(federation("mqtt://localhost", tmp_path, 1), ca_file=authority.file)).run(1))
