"""The put of a small object by the shortest way. With synchronous commits there are hundreds a second, and botocore's
model of S3 takes more CPU for each than signing and sending it.

Credentials, signature, connections, proxies and certificates are the client's own. Only a plain yes counts: after any
other answer, or none, the put goes the long way, which knows what it means, repeats and explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LARGEST = 256 << 10
_OK, _REFUSED = 200, (400, 500)
# Of a put: what its parameters are called on the wire.
_HEADERS = {"IfNoneMatch": "If-None-Match", "IfMatch": "If-Match", "ChecksumSHA256": "x-amz-checksum-sha256"}
_KNOWN = {"Bucket", "Key", "Body", "Metadata", *_HEADERS}


class QuickPuts:
    """Puts into one bucket, from any thread."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client: Any = client  # whose stubs do not show what it is made of
        self._bucket = bucket
        self._beginning: str | None = None

    def put(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send it once.

        Args:
            request: the arguments of the client's `put_object`.

        Returns:
            The answer, as the client gives it; None: it was refused.

        Raises:
            Exception: of any kind: it may or may not have been stored.
        """
        from botocore.awsrequest import AWSRequest

        if self._beginning is None:
            self._beginning = self._url()
        headers = {_HEADERS[name]: value for name, value in request.items() if name in _HEADERS}
        headers |= {f"x-amz-meta-{name}": value for name, value in request["Metadata"].items()}
        url = f"{self._beginning}{quote(request['Key'], safe='/-_.~')}"
        sent = AWSRequest(method="PUT", url=url, data=request["Body"], headers=headers)
        self._client._request_signer.get_auth_instance("s3", self._client.meta.region_name).add_auth(sent)
        answer = self._client._endpoint.http_session.send(sent.prepare())
        if _REFUSED[0] <= answer.status_code < _REFUSED[1]:
            return None
        if answer.status_code != _OK:
            raise RuntimeError(f"HTTP {answer.status_code}")
        return {"ETag": answer.headers.get("ETag", ""), "VersionId": answer.headers.get("x-amz-version-id")}

    def takes(self, request: Mapping[str, Any]) -> bool:
        """Whether it is small, and asks for nothing that this way does not know."""
        return len(request["Body"]) <= LARGEST and request.keys() <= _KNOWN

    def _url(self) -> str:
        """Where the bucket's objects are, as the client addresses them."""
        url: str = self._client.generate_presigned_url("put_object", Params={"Bucket": self._bucket, "Key": "x"})
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix("x"), "", ""))
