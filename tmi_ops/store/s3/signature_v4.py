"""AWS Signature Version 4, in the headers of a request with a small body. Pure.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

_ALGORITHM, _SERVICE = "AWS4-HMAC-SHA256", "s3"


@dataclass(frozen=True)
class Signer:
    """Access keys and their region. `token`: of temporary keys."""

    access_key: str
    secret_key: str
    token: str | None
    region: str

    def signed(
        self, method: str, path: str, headers: Mapping[str, str], body_sha256: str, now: datetime
    ) -> dict[str, str]:
        """The headers to send with the request.

        Args:
            path: as sent, without a query.
            headers: including `host`; names in lower case, values as sent.
            body_sha256: in hexadecimal digits.
            now: in UTC.
        """
        at = f"{now:%Y%m%dT%H%M%SZ}"
        sent = {**headers, "x-amz-date": at, "x-amz-content-sha256": body_sha256}
        if self.token:
            sent["x-amz-security-token"] = self.token
        names = sorted(sent)
        canonical = "".join(f"{name}:{' '.join(sent[name].split())}\n" for name in names)
        signed = ";".join(names)
        request = f"{method}\n{path}\n\n{canonical}\n{signed}\n{body_sha256}"
        scope = f"{at[:8]}/{self.region}/{_SERVICE}/aws4_request"
        text = f"{_ALGORITHM}\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(_key(self.secret_key, at[:8], self.region), text.encode(), hashlib.sha256).hexdigest()
        sent["authorization"] = (
            f"{_ALGORITHM} Credential={self.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return sent


@functools.lru_cache(maxsize=8)
def _key(secret: str, day: str, region: str) -> bytes:
    """The signing key, which is the same for a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, _SERVICE, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
