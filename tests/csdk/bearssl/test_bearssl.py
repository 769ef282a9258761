# SPDX-License-Identifier: Apache-2.0
"""fm_bearssl.c, under the sanitizers, against OpenSSL: what passes, in pieces of any size, and what must not."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Certificate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WAIT_S = 60
LEAST, SOME, ANY = 512 + 325 + 512 + 85, 2048 + 325 + 512 + 85, 16384 + 325 + 512 + 85
BAD_MAC, EXPIRED, BAD_SERVER_NAME, NOT_TRUSTED = 7, 54, 56, 62
HELLO = b"hello"
SESSION_ID = 5 + 4 + 2 + 32  # where a ClientHello says how long its session id is
DATA = bytes(range(256)) * 256


def run(*command: str | Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return {kind: Authority(folder / kind, kind) for kind in ("P-256", "P-384", "RSA")}


@pytest.fixture(scope="module")
def client(authorities: dict[str, Authority], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, which trusts all of these authorities."""
    folder = tmp_path_factory.mktemp("tls_client")
    trusted = folder / "trusted.pem"
    trusted.write_text("".join(authority.file.read_text() for authority in authorities.values()))
    run(ROOT / "firmware_examples" / "fetch_sources.sh")
    run("cmake", "-S", HERE, "-B", folder, "-G", "Ninja", f"-DBEARSSL_DIR={ROOT / 'build/sources/bearssl'}",
        f"-DCA_FILE={trusted}", f"-DPYTHON={sys.executable}")  # fmt: skip
    run("cmake", "--build", folder)
    return folder / "tls_client"


def context_of(shown: Certificate, ciphers: str = "ECDHE+CHACHA20") -> ssl.SSLContext:
    """What OpenSSL shows. Made before the client starts, which else might judge a certificate of the next second."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.set_ciphers(ciphers)
    context.load_cert_chain(shown.certificate, shown.key)
    return context


class Peer:
    """OpenSSL's side of one connection; `spoil` makes of the bytes to the client what goes out."""

    def __init__(self, end: socket.socket, context: ssl.SSLContext) -> None:
        self.end, self.first = end, b""
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)

    def flush(self) -> None:
        data = self.spoil(self._out.read())
        if data:
            self.end.sendall(data)

    def until_done(self, step: Callable[[], object]) -> object:
        """Do a step of OpenSSL's with all the bytes that it asks for."""
        while True:
            try:
                done = step()
                self.flush()
                return done
            except ssl.SSLWantReadError:
                self.flush()
                data = self.end.recv(65536)
                self.first = self.first or data
                if not data:
                    raise ConnectionError("the client hung up") from None
                self._in.write(data)

    def shake_hands(self) -> None:
        self.until_done(self.tls.do_handshake)

    def read(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            more = self.until_done(lambda: self.tls.read(1))
            assert isinstance(more, bytes)
            got += more
        return bytes(got)

    def write(self, data: bytes) -> None:
        self.until_done(lambda: self.tls.write(data))


class Client:
    """The program, and this side's ends of its connections."""

    def __init__(self, program: Path, connections: int = 1, *, host: str = "localhost", buffer: int = SOME,
                 piece: int = 65536, without: str = "nothing") -> None:  # fmt: skip
        pairs = [socket.socketpair() for _ in range(connections)]
        for ours, theirs in pairs:
            ours.settimeout(WAIT_S)
            theirs.setblocking(False)
        numbers = [theirs.fileno() for _, theirs in pairs]
        self.process = subprocess.Popen(
            [program, host, str(buffer), str(piece), without, *map(str, numbers)],
            pass_fds=numbers, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.ends = [ours for ours, _ in pairs]
        for _, theirs in pairs:
            theirs.close()

    def said(self) -> list[str]:
        """All of it, after the program's checks passed."""
        for end in self.ends:
            end.close()
        out = self.process.communicate(timeout=WAIT_S)[0]
        assert self.process.returncode == 0, out
        *lines, last = out.splitlines()
        assert last.endswith("passed, 0 failed")
        return lines


@pytest.fixture
def start(client: Path) -> Iterator[Callable[..., Client]]:
    started: list[Client] = []

    def begin(*arguments: int, **options: Any) -> Client:
        started.append(Client(client, *arguments, **options))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        print(one.process.communicate()[0])  # for a test that failed before it asked
        for end in one.ends:
            end.close()


Start = Callable[..., Client]
Authorities = dict[str, Authority]


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
@pytest.mark.parametrize("ciphers", ["ECDHE+CHACHA20", "ECDHE+AES128+AESGCM"])
def test_keys_and_ciphers(start: Start, authorities: Authorities, kind: str, ciphers: str) -> None:
    """Whatever the authority's key; both ciphers."""
    context = context_of(authorities[kind].issue("localhost"), ciphers)
    one = start()
    peer = Peer(one.ends[0], context)
    peer.shake_hands()
    assert peer.read(len(HELLO)) == HELLO
    peer.write(DATA[:1000])
    assert peer.read(1000) == DATA[:1000]
    assert one.said() == ["open", "ended"]


@pytest.mark.parametrize(("buffer", "piece", "size"), [
    (LEAST, 65536, 65536), (LEAST, 7, 5000), (SOME, 100, 65536), (SOME, 1, 2000), (ANY, 65536, 65536), (ANY, 1, 500),
])  # fmt: skip
def test_pieces_of_any_size(start: Start, authorities: Authorities, buffer: int, piece: int, size: int) -> None:
    """Small buffers ask for small records; the stream below may move as little as it likes."""
    context = context_of(authorities["P-256"].issue("localhost"))
    one = start(buffer=buffer, piece=piece)
    peer = Peer(one.ends[0], context)
    peer.shake_hands()
    assert peer.read(len(HELLO)) == HELLO
    got = b""
    for at in range(0, size, 4096):  # the echo of one piece before the next, or both sides would wait to write
        peer.write(DATA[at : min(at + 4096, size)])
        got += peer.read(min(4096, size - at))
    assert got == DATA[:size]
    assert one.said() == ["open", "ended"]


def test_a_goodbye_ends_the_stream(start: Start, authorities: Authorities) -> None:
    """What came before is still read, and the goodbye is answered."""
    context = context_of(authorities["P-256"].issue("localhost"))
    one = start()
    peer = Peer(one.ends[0], context)
    peer.shake_hands()
    assert peer.read(len(HELLO)) == HELLO
    peer.write(b"last words")
    assert peer.read(10) == b"last words"
    peer.until_done(peer.tls.unwrap)
    assert one.said() == ["open", "ended"]


def test_a_spoilt_record_is_refused(start: Start, authorities: Authorities) -> None:
    """One bit of the data: nothing of the record is handed on."""
    context = context_of(authorities["P-256"].issue("localhost"))
    one = start()
    peer = Peer(one.ends[0], context)
    peer.shake_hands()
    assert peer.read(len(HELLO)) == HELLO
    peer.spoil = lambda data: data[:8] + bytes([data[8] ^ 1]) + data[9:] if len(data) > 8 else data
    peer.write(b"not this")
    with pytest.raises((ConnectionError, ssl.SSLError)):
        peer.read(1)
    assert one.said() == ["open", "ended", f"error {BAD_MAC}"]


@pytest.mark.parametrize("bytes_before", [0, 100, 400])
def test_a_connection_lost_in_the_handshake(start: Start, authorities: Authorities, bytes_before: int) -> None:
    """It is refused, without an error of TLS's."""
    context = context_of(authorities["P-256"].issue("localhost"))
    one = start()
    peer = Peer(one.ends[0], context)
    peer.spoil = lambda data: data[:bytes_before]
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    peer.end.recv(1)  # it has begun
    peer.flush()
    assert one.said() == ["refused"]


def refused(end: socket.socket, context: ssl.SSLContext) -> bytes:
    """A handshake that the client gives up; the first bytes that it sent."""
    peer = Peer(end, context)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        peer.shake_hands()
        peer.read(1)
    end.close()
    return peer.first


def test_certificates_that_must_not_pass(start: Start, authorities: Authorities, tmp_path: Path) -> None:
    """By an authority of the same name, for another host, out of date."""
    good = authorities["P-256"]
    shown = [
        (Authority(tmp_path / "other").issue("localhost"), NOT_TRUSTED),
        (good.issue("elsewhere.example"), BAD_SERVER_NAME),
        (good.issue("localhost", days=-1), EXPIRED),
    ]
    one = start(len(shown))
    for end, (certificate, _) in zip(one.ends, shown, strict=True):
        refused(end, context_of(certificate))
    assert one.said() == [line for _, error in shown for line in (f"error {error}", "refused")]


@pytest.mark.parametrize("missing", ["random", "time"])
def test_without_randomness_or_time_nothing_is_sent(start: Start, missing: str) -> None:
    one = start(without=missing)
    assert one.ends[0].recv(1) == b""
    assert one.said() == ["refused"]


def test_sessions_are_resumed(start: Start, authorities: Authorities) -> None:
    """The second connection needs no certificate."""
    context = context_of(authorities["P-256"].issue("localhost"))
    one = start(2)
    reused = []
    for end in one.ends:
        peer = Peer(end, context)
        peer.shake_hands()
        assert peer.read(len(HELLO)) == HELLO
        reused.append(peer.tls.session_reused)
        peer.until_done(peer.tls.unwrap)
        end.close()
    assert reused == [False, True]
    assert one.said() == ["open", "ended"] * 2


def test_a_session_with_a_refused_peer_is_not_resumed(start: Start, authorities: Authorities, tmp_path: Path) -> None:
    """Its keys were agreed upon with nobody knows whom; nor is the one before it."""
    good = context_of(authorities["P-256"].issue("localhost"))
    bad = context_of(Authority(tmp_path / "other").issue("localhost"))
    one = start(3)
    peer = Peer(one.ends[0], good)
    peer.shake_hands()
    assert peer.read(len(HELLO)) == HELLO
    peer.end.close()
    first = [peer.first, refused(one.ends[1], bad), refused(one.ends[2], bad)]
    assert [hello[SESSION_ID] for hello in first] == [0, 32, 0]
    assert one.said() == ["open", "ended", f"error {NOT_TRUSTED}", "refused", f"error {NOT_TRUSTED}", "refused"]
