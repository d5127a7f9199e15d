"""A certificate authority of our own, by the openssl program; skips where the machine lacks it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmi_ops.postgres.programs import Programs, run_program


def skip_without_tls(programs: Programs) -> None:
    """Leave the test out where the server's program speaks no TLS."""
    if "openssl" not in run_program([programs.path("pg_config"), "--configure"]):
        pytest.skip(f"PostgreSQL {programs.version} in {programs.bindir} was built without TLS")


@dataclass(frozen=True)
class Certificate:
    """PEM files; `authority` signed `certificate`."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Authority:
    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "ca.crt"

    def certify(self, host: str) -> Certificate:
        """The certificate of a server with this host name, or of a client with this role's."""
        certificate, key = self.directory / f"{host}.crt", self.directory / f"{host}.key"
        signed_by = ["-CA", self.file, "-CAkey", self.directory / "ca.key"]
        _make_certificate(key, certificate, host, [*signed_by, "-addext", f"subjectAltName=DNS:{host}"])
        return Certificate(certificate, key, self.file)


def make_authority(directory: Path, name: str) -> Authority:
    directory.mkdir()
    directory.chmod(0o755)
    authority = Authority(directory)
    _make_certificate(directory / "ca.key", authority.file, name, ["-addext", "keyUsage=critical,keyCertSign"])
    return authority


def _make_certificate(key: Path, certificate: Path, name: str, how: list[str | Path]) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program here to make certificates with")
    argv = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate), *map(str, how)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
