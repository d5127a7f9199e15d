"""The declarative base, and the column types that many tables share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, Boolean, DateTime, Integer, LargeBinary, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

Uuid = Annotated[str, "uuid"]
Name = Annotated[str, "name"]
Email = Annotated[str, "email"]
ProviderName = Annotated[str, "provider name"]
ProviderSubject = Annotated[str, "provider subject"]
Status = Annotated[str, "status"]
Json = Annotated[Any, "json"]

UuidKey = Annotated[str, mapped_column(String(36), primary_key=True)]
TrueByDefault = Annotated[bool, mapped_column(Boolean, server_default=text("true"))]
FalseByDefault = Annotated[bool, mapped_column(Boolean, server_default=text("false"))]
Counter = Annotated[int, mapped_column(BigInteger, server_default=text("0"))]
Version = Annotated[int, mapped_column(BigInteger, server_default=text("1"))]
Alias = Annotated[int, mapped_column(Integer, server_default=text("0"))]


class Base(DeclarativeBase):
    """Every table TMI needs; `Base.metadata` is the single source of truth for migration and validation."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        str: Text(),
        int: BigInteger(),
        bool: Boolean(),
        bytes: LargeBinary(),
        datetime: DateTime(timezone=True),
        Uuid: String(36),
        Name: String(256),
        Email: String(320),
        ProviderName: String(100),
        ProviderSubject: String(500),
        Status: String(128),
        Json: JSONB(),
    }
