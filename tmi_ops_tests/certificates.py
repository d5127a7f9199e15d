"""A certificate authority of our own, by the openssl program; skips where the machine lacks it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmi_ops.postgres.programs import Programs, run_program

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


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

    def for_a_server(self) -> ssl.SSLContext:
        """What a server in this process greets its clients with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True)
class Authority:
    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "ca.crt"

    def certify(self, host: str, *, days: int = 90) -> Certificate:
        """The certificate of a server with this host name, or of a client with this role's."""
        certificate, key = self.directory / f"{host}.crt", self.directory / f"{host}.key"
        signed_by = ["-CA", self.file, "-CAkey", self.directory / "ca.key"]
        _make_certificate(key, certificate, host, [*signed_by, "-addext", f"subjectAltName=DNS:{host}"], days)
        return Certificate(certificate, key, self.file)

    def certify_for_the_past(self, host: str) -> Certificate:
        """A certificate that ended years ago."""
        request, certificate, key = (self.directory / f"old.{kind}" for kind in ("csr", "crt", "key"))
        _openssl("req", "-new", *_NEW_KEY, "-subj", f"/CN={host}", "-keyout", key, "-out", request)
        (self.directory / "index.txt").touch()
        config = self.directory / "ca.cnf"
        config.write_text(
            "[ca]\ndefault_ca = own\n[own]\npolicy = any\nrand_serial = yes\ndefault_md = sha256\n"
            f"database = {self.directory / 'index.txt'}\nnew_certs_dir = {self.directory}\n"
            "[any]\ncommonName = supplied\n"
        )
        period = ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
        signing = ("-cert", self.file, "-keyfile", self.directory / "ca.key", "-in", request, "-out", certificate)
        _openssl("ca", "-batch", "-notext", "-config", config, *period, *signing)
        return Certificate(certificate, key, self.file)


def make_authority(directory: Path, name: str) -> Authority:
    directory.mkdir()
    directory.chmod(0o755)
    authority = Authority(directory)
    _make_certificate(directory / "ca.key", authority.file, name, ["-addext", "keyUsage=critical,keyCertSign"])
    return authority


def _make_certificate(key: Path, certificate: Path, name: str, how: list[str | Path], days: int = 90) -> None:
    written = ("-keyout", key, "-out", certificate)
    _openssl("req", "-x509", *_NEW_KEY, "-days", str(days), "-subj", f"/CN={name}", *written, *how)


def _openssl(*arguments: str | Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program here to make certificates with")
    done = subprocess.run([openssl, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
