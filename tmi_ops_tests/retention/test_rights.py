"""What a plan of retention needs that keys may do, and what the store's answers say about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tmi_ops.errors import StoreError
from tmi_ops.retention.facts import HalfMade, WalFile
from tmi_ops.retention.plan import RetentionPlan, WalDecision
from tmi_ops.retention.rights import KeyRight, Right, needed_rights, read_rights, require_rights
from tmi_ops.settings import Retain
from tmi_ops.store.guarding import UnfinishedUpload
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.s3.backend import S3Backend
from tmi_ops.store.s3.guard import NOWHERE
from tmi_ops_tests.retention.stored import LEAN

NOW = datetime(2026, 11, 28, 8, tzinfo=UTC)
RETAIN = Retain(period=timedelta(days=30), mode="GOVERNANCE")
NOTHING = RetentionPlan(LEAN, ())
HALF = replace(NOTHING, half_made=(HalfMade("20260101T000000Z-logical-0000", 10, 1, NOW),))
UPLOAD = replace(NOTHING, uploads=(UnfinishedUpload("logical/x/part", "1", NOW),))
WAL = replace(NOTHING, wal=(WalDecision("7", 0, 0, (WalFile("wal/7/x", 1, NOW, 1, 0, 1),), ()),))


class _Exceptions:
    ClientError = ClientError


@dataclass
class AnsweringS3:
    """Answers every request with one code; empty: it obeys. Notes what it was asked."""

    code: str
    exceptions: Any = _Exceptions
    asked: list[tuple[str, str]] = field(default_factory=list)

    def delete_object(self, *, Key: str, **_: Any) -> object:
        return self._answer("delete", Key)

    def abort_multipart_upload(self, *, Key: str, **_: Any) -> object:
        return self._answer("abort", Key)

    def put_object_retention(self, *, Key: str, **_: Any) -> object:
        return self._answer("extend", Key)

    def store(self, retain: Retain | None = None) -> ObjectStore:
        backend = S3Backend(client=self, bucket="b", root="tmi-ops/production/", where="s3", retain=retain)  # type: ignore[arg-type]
        return ObjectStore(backend, retain=retain)

    def _answer(self, verb: str, key: str) -> object:
        self.asked.append((verb, key))
        if self.code:
            raise ClientError({"Error": {"Code": self.code}}, verb)
        return {}


@pytest.mark.parametrize(
    ("plan", "extends", "needed"),
    [
        (NOTHING, False, ()),
        (NOTHING, True, (Right.EXTEND,)),
        (HALF, False, (Right.DELETE,)),
        (WAL, False, (Right.DELETE,)),
        (UPLOAD, False, (Right.ABORT,)),
        (replace(WAL, uploads=UPLOAD.uploads), True, (Right.DELETE, Right.ABORT, Right.EXTEND)),
        (replace(NOTHING, wal=(replace(WAL.wal[0], removed=()),)), False, ()),
    ],
)
def test_a_plan_needs_the_rights_of_what_it_does_and_no_other(
    plan: RetentionPlan, extends: bool, needed: tuple[Right, ...]
) -> None:
    assert needed_rights(plan, extends_locks=extends) == needed


@pytest.mark.parametrize(
    ("code", "may"),
    [("NoSuchKey", None), ("NoSuchUpload", None), ("AccessDenied", False), ("403", False), ("Odd", None)],
)
def test_the_server_is_asked_about_what_is_not_there_and_a_refusal_tells(code: str, may: bool | None) -> None:
    server = AnsweringS3(code)
    rights = read_rights(server.store(RETAIN), replace(HALF, uploads=UPLOAD.uploads), NOW)
    assert [one.right for one in rights] == [Right.DELETE, Right.ABORT, Right.EXTEND]
    assert {one.may for one in rights} == {may}
    assert {one.because for one in rights} == {"" if may is not None else "the store's answer does not tell"}
    assert server.asked == [(verb, f"tmi-ops/production/{NOWHERE}") for verb in ("delete", "abort", "extend")]


def test_a_server_that_deletes_what_is_not_there_says_that_the_keys_may_and_of_uploads_and_locks_nothing() -> None:
    rights = read_rights(AnsweringS3("").store(RETAIN), replace(HALF, uploads=UPLOAD.uploads), NOW)
    assert [one.may for one in rights] == [True, None, None]


def test_a_bucket_that_keeps_versions_is_not_asked_about_deleting_and_that_is_said() -> None:
    server = AnsweringS3("AccessDenied")
    (right,) = read_rights(server.store(), replace(HALF, has_object_lock=True), NOW)
    assert server.asked == []
    assert right.describe() == (
        "it is unknown whether the store's keys have s3:DeleteObject: "
        "a bucket with Object Lock would record the request as a deletion"
    )


def test_what_is_known_to_be_missing_is_refused_and_what_is_unknown_is_tried() -> None:
    unknown = KeyRight(Right.DELETE, None, "the store's answer does not tell")
    require_rights([unknown, KeyRight(Right.ABORT, True)])
    with pytest.raises(StoreError) as refused:
        require_rights([unknown, KeyRight(Right.ABORT, False), KeyRight(Right.EXTEND, False)])
    assert refused.value.message == (
        "The store's keys lack s3:AbortMultipartUpload, s3:PutObjectRetention, which this plan needs."
    )
    assert refused.value.detail == "Nothing was removed."
    assert "docs/iam/pruner.json" in refused.value.hint


def test_rights_are_said_in_words() -> None:
    assert KeyRight(Right.DELETE, True).describe() == "the store's keys have s3:DeleteObject"
    assert KeyRight(Right.DELETE, False).describe() == "the store's keys lack s3:DeleteObject"
