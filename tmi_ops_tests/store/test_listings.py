from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.s3.listings import page_of, page_parsers

AWS = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>a/</Prefix>
<NextContinuationToken>1u/==</NextContinuationToken><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys><Delimiter>/</Delimiter>
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<Contents><Key>a/b%26c</Key><LastModified>2026-11-28T02:00:00.123Z</LastModified><ETag>&quot;0a-2&quot;</ETag>
<ChecksumAlgorithm>SHA256</ChecksumAlgorithm><Size>5368709121</Size><StorageClass>STANDARD</StorageClass></Contents>
<CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>a/e/</Prefix></CommonPrefixes>
</ListBucketResult>"""
USED = {"Contents", "CommonPrefixes", "IsTruncated", "NextContinuationToken", "EncodingType", "Prefix", "Delimiter"}


def as_botocore_reads(body: bytes, shape: Any) -> dict[str, Any]:
    from botocore.parsers import RestXMLParser

    page = RestXMLParser().parse({"body": body, "headers": {}, "status_code": 200}, shape)
    page["Contents"] = [
        {name: item[name] for name in ("Key", "Size", "LastModified", "ETag")} for item in page.get("Contents", ())
    ]
    return {name: value for name, value in page.items() if name in USED and value}


def shape_of(store: ObjectStore) -> Any:
    return store.backend.client.meta.service_model.operation_model("ListObjectsV2").output_shape


def test_a_page_is_read_as_botocore_reads_it(store: ObjectStore) -> None:
    pages: list[bytes] = []
    events: Any = store.backend.client.meta.events
    events.register("before-parse.s3.ListObjectsV2", lambda response_dict, **_: pages.append(response_dict["body"]))
    names = ["a&b", "a b", "a+b", "ä<b>", 'a"b', "folder/one", "folder/two"]
    for name in names:
        store.put_bytes(f"listed/{name}", name.encode())
    assert sorted(item.key for item in store.list_objects("listed/")) == sorted(f"listed/{name}" for name in names)
    assert store.list_level("listed")[1] == ["folder"]
    assert store.list_folders("listed") == ["folder"]
    assert list(store.list_objects("nothing/")) == []
    assert len(pages) == 4
    for body in [*pages, AWS.encode()]:
        page = page_of(body)
        assert page is not None
        assert {name: page[name] for name in page if name in USED and page[name]} == as_botocore_reads(
            body, shape_of(store)
        )


def test_what_aws_answers_is_understood() -> None:
    page = page_of(AWS.encode())
    assert page is not None
    assert page["NextContinuationToken"] == "1u/=="
    assert page["IsTruncated"] is True
    assert page["CommonPrefixes"] == [{"Prefix": "a/d/"}, {"Prefix": "a/e/"}]
    (item,) = page["Contents"]
    assert item == {
        "Key": "a/b%26c",
        "Size": 5368709121,
        "LastModified": datetime(2026, 11, 28, 2, 0, 0, 123000, UTC),
        "ETag": '"0a-2"',
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ListBucketResult", "Error"),
        ("</ListBucketResult>", ""),
        ("2026-11-28T02:00:00.123Z", "Sat, 28 Nov 2026 02:00:00 GMT"),
        ("2026-11-28T02:00:00.123Z", "2026-11-28T02:00:00"),
        ("5368709121", "many"),
        ("<Key>a/b%26c</Key>", ""),
    ],
)
def test_what_is_not_as_expected_is_left_to_botocore(old: str, new: str) -> None:
    assert page_of(AWS.replace(old, new).encode()) is None


def test_a_time_in_another_form_is_read_by_botocore(store: ObjectStore) -> None:
    body = AWS.replace("2026-11-28T02:00:00.123Z", "Sat, 28 Nov 2026 02:00:00 GMT").encode()
    parser = page_parsers().create_parser("rest-xml")
    page = parser.parse({"body": body, "headers": {"Date": "x"}, "status_code": 200}, shape_of(store))
    assert page["Contents"][0]["LastModified"] == datetime(2026, 11, 28, 2, tzinfo=UTC)
    assert page["ResponseMetadata"]["HTTPHeaders"] == {"date": "x"}
