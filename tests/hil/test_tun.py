# SPDX-License-Identifier: Apache-2.0
"""The user-space network: packets on a virtual clock, real sockets, and a federation over real packet loss."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from waiting import WAIT_S, until

from fedmote.faults.tun import ADDRESS, Network, PacketPath

PACKETS = [bytes([i % 256]) * 100 for i in range(2000)]


def carry(way: PacketPath) -> list[bytes]:
    """Send one packet each millisecond."""
    out: list[bytes] = []
    for i, packet in enumerate(PACKETS):
        way.push(packet, i / 1000)
        out += way.pop(i / 1000)
    return out + way.pop(1e9)


def test_packets_fare_by_seed_and_number() -> None:
    """The same seed loses, delays and reorders the same packets."""
    faults: dict[str, Any] = {"loss": 0.1, "delay": 0.02, "jitter": 0.005, "reorder": 0.05}
    first, again, other = (PacketPath(**faults, seed=seed) for seed in ("1", "1", "2"))
    out = carry(first)
    assert out == carry(again) != carry(other)
    assert 0.08 < first.lost / len(PACKETS) < 0.12 and len(out) == len(PACKETS) - first.lost
    assert first.overtook > 50 and out != sorted(out, key=PACKETS.index)


def test_delay_and_bandwidth_on_a_clock() -> None:
    """A packet arrives one delay after the line has sent it and those before it."""
    way = PacketPath(delay=1.0, bandwidth=100.0)
    way.push(PACKETS[0], 0.0)
    way.push(PACKETS[1], 0.0)
    assert way.due == 2.0 and way.pop(1.99) == []
    assert way.pop(2.0) == [PACKETS[0]] and way.pop(2.99) == [] and way.pop(3.0) == [PACKETS[1]]


def test_corruption_leaves_the_header() -> None:
    """One bit after the IP header is flipped, so the packet arrives and a checksum finds the error."""
    out = carry(way := PacketPath(corrupt=0.2))
    changed = [(a, b) for a, b in zip(PACKETS, out, strict=True) if a != b]
    assert len(changed) == way.corrupted > 300
    assert all(
        a[:20] == b[:20] and sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True)) == 1 for a, b in changed
    )


@pytest.mark.parametrize("wrong", [{"loss": 2.0}, {"delay": 0.1, "jitter": 0.2}, {"reorder": 0.1}, {"bandwidth": 0.0}])
def test_impossible_faults_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Network(**wrong)


def test_real_sockets_lose_what_was_drawn() -> None:
    """Of 400 datagrams exactly those arrive that the seed lets pass. Afterwards the hosts are gone."""
    sent = [i.to_bytes(2, "big") for i in range(400)]
    with Network(loss=0.25, seed=7) as network:
        with network.inside("device"):
            device = socket.socket(type=socket.SOCK_DGRAM)
        with network.inside("server"):
            server = socket.socket(type=socket.SOCK_DGRAM)
        with device, server:
            server.bind((ADDRESS["server"], 4000))
            server.settimeout(WAIT_S)
            passed = let_through("7/device", sent)
            for packet in sent:  # one after the other, so that no queue of the kernel's overflows
                device.sendto(packet, (ADDRESS["server"], 4000))
                if packet in passed:
                    assert server.recv(10) == packet
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.recv(10)
        way = network.ways["device"]
        until(lambda: way.lost + way.passed == len(sent))
        assert (way.lost, way.passed) == (len(sent) - len(passed), len(passed))
        names = list(network.names.values())
        listed = subprocess.run([*network.command("server"), "ip", "-br", "addr"], capture_output=True, text=True)
        assert ADDRESS["server"] in listed.stdout
    assert not {entry for entry in os.listdir("/run/netns") if entry in names}


def lost(network: Network) -> int:
    """Return the number of packets so far, in both directions."""
    return sum(way.lost for way in network.ways.values())


def let_through(seed: str, packets: list[bytes]) -> list[bytes]:
    """Return what a path with this seed does not lose."""
    way = PacketPath(loss=0.25, seed=seed)
    for packet in packets:
        way.push(packet, 0.0)
    return way.pop(0.0)


def test_a_federation_over_packet_loss(federation: Callable[..., Any], link_faults: Callable[..., Any]) -> None:
    """MQTT with one packet in ten lost and others reordered: every update counts once, also after an outage."""
    faults = link_faults(loss=0.1, delay=0.002, jitter=0.001, reorder=0.05, seed=2)
    network = faults.network()
    running = federation(3, network=network, rounds=100_000)
    running.wait_rounds(1)
    faults.cut()
    before = lost(network)
    until(lambda: lost(network) > before)
    faults.restore()
    records = running.wait_rounds(3)
    assert [r.reported for r in records] == [3, 3, 3]
    assert all(sorted(running.folds(r).devices) == ["desktop-0", "desktop-1", "desktop-2"] for r in (1, 2, 3))
    assert all(way.lost > 10 for way in network.ways.values())
