# SPDX-License-Identifier: Apache-2.0
"""Certificates made with the openssl program: certificate authorities and the certificates that they sign."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

NEW = ["-nodes", "-sha256", "-newkey"]
KEYS = {
    "P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "P-384": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "RSA": ["rsa:2048"],
}


@dataclass(frozen=True)
class Certificate:
    """Two PEM files."""

    certificate: Path
    key: Path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Signs certificates for servers, with keys of the same kind as its own. `file` is its own certificate."""

    def __init__(self, folder: Path, kind: str = "P-256") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file, self._new = folder, folder / "ca.pem", [*NEW, *KEYS[kind]]
        _openssl("req", "-x509", *self._new, "-days", "3650", "-subj", "/CN=test authority", "-out", self.file,
                 "-keyout", folder / "ca.key", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip

    def issue(self, name: str, days: int = 30) -> Certificate:
        """Sign a certificate for a DNS name. With a negative number of days the certificate has already expired."""
        made = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}\nbasicConstraints=critical,CA:FALSE\n")
        _openssl("req", *self._new, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.folder / "ca.key", "-CAcreateserial",
                 "-days", str(days), "-sha256", "-extfile", extensions, "-out", made.certificate)  # fmt: skip
        return made
