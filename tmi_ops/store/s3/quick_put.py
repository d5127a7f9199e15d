"""The put of a small object by the shortest way. With synchronous commits there are hundreds a second, and botocore's
model of S3 takes more CPU for each than the put itself.

Credentials, region, addresses, timeouts and certificates are the client's own; where it uses a proxy, a certificate of
ours or another kind of signature, the long way is taken. Only a plain yes counts: after any other answer, or none, the
put goes the long way, which knows what it means, repeats and explains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit

from tmi_ops.store.s3.signature_v4 import Signer
from tmi_ops.store.s3.wire import Wire

if TYPE_CHECKING:
    import ssl

    from mypy_boto3_s3 import S3Client

LARGEST = 256 << 10
_OK, _REFUSED = 200, (400, 500)
# Of a put: what its parameters are called on the wire.
_HEADERS = {"IfNoneMatch": "if-none-match", "IfMatch": "if-match", "ChecksumSHA256": "x-amz-checksum-sha256"}
_KNOWN = {"Bucket", "Key", "Body", "Metadata", *_HEADERS}
_PORTS = {"http": 80, "https": 443}


class QuickPuts:
    """Puts into one bucket, from any thread."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client: Any = client  # whose stubs do not show what it is made of
        self._bucket = bucket
        self._way: tuple[Wire, SplitResult] | None = None
        self._is_usable: bool | None = None

    def put(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send it once.

        Args:
            request: the arguments of the client's `put_object`.

        Returns:
            The answer, as the client gives it; None: it was refused.

        Raises:
            Exception: of any kind: it may or may not have been stored.
        """
        wire, place = self._way = self._way or self._found_way()
        body = request["Body"]
        path = f"{place.path}{quote(request['Key'], safe='/-_.~')}"
        headers = {"host": place.netloc}
        headers |= {_HEADERS[name]: value for name, value in request.items() if name in _HEADERS}
        headers |= {f"x-amz-meta-{name.lower()}": value for name, value in request["Metadata"].items()}
        sha256 = hashlib.sha256(body).hexdigest()
        sent = self._signer().signed("PUT", path, headers, sha256, datetime.now(UTC))
        head = "".join(f"{name.title()}: {value}\r\n" for name, value in sent.items())
        answer = wire.exchange(f"PUT {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if _REFUSED[0] <= answer.status < _REFUSED[1]:
            return None
        etag = answer.headers.get("etag")
        if answer.status != _OK or not etag:
            raise RuntimeError(f"HTTP {answer.status}")
        return {"ETag": etag, "VersionId": answer.headers.get("x-amz-version-id")}

    def takes(self, request: Mapping[str, Any]) -> bool:
        """Whether it is small, asks for nothing that this way does not know, and the client's own way is this one."""
        if len(request["Body"]) > LARGEST or not request.keys() <= _KNOWN:
            return False
        if not all(value.isascii() and value.isprintable() for value in request["Metadata"].values()):
            return False
        if self._is_usable is None:
            self._is_usable = self._can_be_used()
        return self._is_usable

    def _can_be_used(self) -> bool:
        from botocore.auth import S3SigV4Auth

        url = self._url()
        try:
            session = self._client._endpoint.http_session
            is_plain = session._verify is not False and session._cert_file is None
            return (
                is_plain
                and session._proxy_config.proxy_url_for(url) is None
                and type(self._auth()) is S3SigV4Auth
                and urlsplit(url).scheme in _PORTS
            )
        except AttributeError:  # another release of botocore is made otherwise
            return False

    def _found_way(self) -> tuple[Wire, SplitResult]:
        place, timeout = urlsplit(self._url()), self._client.meta.config
        return (
            Wire(
                place.hostname or "",
                place.port or _PORTS[place.scheme],
                tls=self._tls() if place.scheme == "https" else None,
                connect_s=timeout.connect_timeout,
                silence_s=timeout.read_timeout,
            ),
            place,
        )

    def _tls(self) -> ssl.SSLContext:
        import ssl

        from botocore.httpsession import get_cert_path

        return ssl.create_default_context(cafile=get_cert_path(self._client._endpoint.http_session._verify))

    def _auth(self) -> Any:
        return self._client._request_signer.get_auth_instance("s3", self._client.meta.region_name)

    def _signer(self) -> Signer:
        """With the credentials of now: temporary ones are renewed."""
        auth = self._auth()
        keys = auth.credentials
        return Signer(keys.access_key, keys.secret_key, keys.token, auth._region_name)

    def _url(self) -> str:
        """Where the bucket's objects are, as the client addresses them."""
        url: str = self._client.generate_presigned_url("put_object", Params={"Bucket": self._bucket, "Key": "x"})
        return url.partition("?")[0].removesuffix("x")
