"""An S3 server's listing, deleting and heads in memory, which stops after so many deletions: thousands of crashes a
minute. What a real server answers is tested beside it."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from tmi_ops.errors import StoreError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.s3.backend import S3Backend


class CrashError(BaseException):
    """The process ended here."""


class _Exceptions:
    ClientError = ClientError


@dataclass
class MemoryS3:
    """Keys and sizes; deletes one key at a time, in the order asked for."""

    objects: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    deletions_left: int | None = None
    exceptions: Any = _Exceptions

    def delete_objects(self, *, Delete: dict[str, Any], **_: Any) -> dict[str, Any]:
        for item in Delete["Objects"]:
            if self.deletions_left == 0:
                raise CrashError
            if self.deletions_left is not None:
                self.deletions_left -= 1
            self.objects.pop(item["Key"], None)
        return {}

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:
        if Key not in self.objects:
            missing = {"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            raise ClientError(missing, "HeadObject")  # type: ignore[arg-type]
        size, modified = self.objects[Key]
        return {"ContentLength": size, "ETag": '"e"', "LastModified": modified}

    def get_object(self, **where: Any) -> dict[str, Any]:
        """Of what is not there; nobody reads what is."""
        return self.head_object(**where)

    def put_object(self, **_: Any) -> dict[str, Any]:
        """Nothing may be written here, as with a key that may only remove: no catalogue is told of anything."""
        raise StoreError("This server takes nothing.")

    def get_paginator(self, operation: str) -> _Pages:
        return _Pages(self, operation)

    def store(self) -> ObjectStore:
        return ObjectStore(S3Backend(client=self, bucket="memory", root="", where="memory"))  # type: ignore[arg-type]


@dataclass
class _Pages:
    s3: MemoryS3
    operation: str

    def paginate(self, *, Prefix: str, Delimiter: str = "", **_: Any) -> Iterator[dict[str, Any]]:
        if self.operation == "list_multipart_uploads":
            return
        keys = sorted(self.s3.objects)
        start = bisect.bisect_left(keys, Prefix)
        below = [key for key in keys[start:] if key.startswith(Prefix)]
        if Delimiter:
            names = dict.fromkeys(key[len(Prefix) :].split("/")[0] for key in below)
            yield {"CommonPrefixes": [{"Prefix": f"{Prefix}{name}/"} for name in names]}
        else:
            for key in below:
                size, modified = self.s3.objects[key]
                yield {"Contents": [{"Key": key, "Size": size, "LastModified": modified}]}
