"""A faster put of small objects. With synchronous commits there are hundreds a second.

botocore's model of S3 takes more CPU for each of them than the put itself.

Credentials, region, addresses, timeouts and certificates are the client's own; if the client uses a proxy, a client
certificate or another kind of signature, the normal put is used. Only a plain success counts: after any other response,
or none, the object is put again by the normal put, which interprets, retries and explains.
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
# The HTTP headers of a put's parameters.
_HEADERS = {"IfNoneMatch": "if-none-match", "IfMatch": "if-match", "ChecksumSHA256": "x-amz-checksum-sha256"}
_KNOWN = {"Bucket", "Key", "Body", "Metadata", *_HEADERS}
_PORTS = {"http": 80, "https": 443}


class QuickPuts:
    """Puts into one bucket, from any thread."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client: Any = client  # whose stubs lack its internals
        self._bucket = bucket
        self._way: tuple[Wire, SplitResult] | None = None
        self._is_usable: bool | None = None

    def put(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send the put once.

        Args:
            request: the arguments of the client's `put_object`.

        Returns:
            The response as the client returns it; None if the put was refused.

        Raises:
            Exception: of any kind; the object may or may not have been stored.
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
        """Whether the put is small, uses only what is supported here, and the client's configuration allows it."""
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
        except AttributeError:  # another release of botocore has other internals
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
        """A signer with the current credentials: temporary ones are renewed."""
        auth = self._auth()
        keys = auth.credentials
        return Signer(keys.access_key, keys.secret_key, keys.token, auth._region_name)

    def _url(self) -> str:
        """The URL of the bucket's objects as the client addresses them."""
        url: str = self._client.generate_presigned_url("put_object", Params={"Bucket": self._bucket, "Key": "x"})
        return url.partition("?")[0].removesuffix("x")
