"""A faster parser for the pages of a bucket's listing.

Most requests to a store with a long history are listings, and botocore's model of S3 needs ten times the CPU for a
page. botocore still sends requests, retries and handles refusals; this module parses only responses to ListObjectsV2.
If a response is not as expected, botocore parses it after all.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from botocore.parsers import ResponseParserFactory

_ROOT, _SHAPE, _OK = "ListBucketResult", "ListObjectsV2Output", 200
# Fields of the request that pagination and decoding of names need.
_WORDS = ("Name", "Prefix", "Delimiter", "EncodingType", "StartAfter", "ContinuationToken", "NextContinuationToken")


@functools.cache
def page_parsers() -> ResponseParserFactory:
    """botocore's parsers for a session, except for listings."""
    from botocore.parsers import ResponseParserFactory, RestXMLParser
    from botocore.utils import lowercase_dict

    class ListingParser(RestXMLParser):
        def parse(self, response: Any, shape: Any) -> Any:
            is_page = shape is not None and shape.name == _SHAPE and response["status_code"] == _OK
            page = page_of(response["body"]) if is_page else None
            if page is None:
                return super().parse(response, shape)
            headers = lowercase_dict(response["headers"])
            page["ResponseMetadata"] = {
                "RequestId": headers.get("x-amz-request-id", ""),
                "HTTPStatusCode": _OK,
                "HTTPHeaders": headers,
            }
            return page

    class ListingParsers(ResponseParserFactory):
        def create_parser(self, protocol_name: str) -> Any:
            return ListingParser() if protocol_name == "rest-xml" else super().create_parser(protocol_name)

    return ListingParsers()


def page_of(body: bytes) -> dict[str, Any] | None:
    """The fields of botocore's result for a page that are used here; None if the page is not as expected. Pure."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - as botocore does
        space, _, name = root.tag.rpartition("}")
        space += "}" if space else ""
        if name != _ROOT:
            return None
        page: dict[str, Any] = {"IsTruncated": root.findtext(f"{space}IsTruncated", "false") == "true"}
        page |= {word: text for word in _WORDS if (text := root.findtext(f"{space}{word}")) is not None}
        contents = _objects(root, space)
        folders = [{"Prefix": one.findtext(f"{space}Prefix", "")} for one in root.iterfind(f"{space}CommonPrefixes")]
    except (ET.ParseError, KeyError, TypeError, ValueError):
        return None
    page |= {"Contents": contents} if contents else {}
    return page | ({"CommonPrefixes": folders} if folders else {})


def _objects(root: ET.Element, space: str) -> list[dict[str, Any]]:
    key, size, modified, etag = (f"{space}{name}" for name in ("Key", "Size", "LastModified", "ETag"))
    found = []
    for item in root.iterfind(f"{space}Contents"):
        told = {child.tag: child.text for child in item}
        at = datetime.fromisoformat(told[modified] or "")
        if at.tzinfo is None:
            raise ValueError(modified)
        found.append(
            {"Key": told[key] or "", "Size": int(told[size] or ""), "LastModified": at, "ETag": told.get(etag) or ""}
        )
    return found
