"""What is attached to a threat model: documents, notes, repositories, metadata."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Alias, Base, FalseByDefault, Json, Name, TrueByDefault, Uuid, UuidKey, Version


class Document(Base):
    """A document that a threat model refers to."""

    __tablename__ = "documents"
    __table_args__ = (
        Index("idx_docs_tm", "threat_model_id"),
        Index("idx_docs_tm_created", "threat_model_id", "created_at"),
        Index("idx_docs_tm_modified", "threat_model_id", "modified_at"),
        Index("uniq_documents_tm_alias", "threat_model_id", "alias", unique=True),
        Index("idx_docs_name", "name"),
        Index("idx_docs_picker", "picker_provider_id", "picker_file_id"),
        Index("idx_docs_created", "created_at"),
        Index("idx_docs_modified", "modified_at"),
        Index("idx_docs_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_documents_threat_model"))
    name: Mapped[Name]
    uri: Mapped[str]
    description: Mapped[str | None]
    include_in_report: Mapped[TrueByDefault | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    access_status: Mapped[str | None] = mapped_column(String(32), server_default="unknown")
    content_source: Mapped[str | None] = mapped_column(String(64))
    picker_provider_id: Mapped[str | None] = mapped_column(String(64))
    picker_file_id: Mapped[str | None] = mapped_column(String(255))
    picker_mime_type: Mapped[str | None] = mapped_column(String(128))
    access_reason_code: Mapped[str | None] = mapped_column(String(64))
    access_reason_detail: Mapped[str | None]
    access_status_updated_at: Mapped[datetime | None]
    alias: Mapped[Alias]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[Version]


class ExtractionJob(Base):
    """The work of reading the text of a document."""

    __tablename__ = "extraction_jobs"
    __table_args__ = (Index("idx_extraction_jobs_doc", "document_ref"),)

    job_id: Mapped[UuidKey]
    document_ref: Mapped[Uuid]
    status: Mapped[str] = mapped_column(String(32), server_default="queued")
    reason_code: Mapped[str | None] = mapped_column(String(64))
    stage: Mapped[str | None] = mapped_column(String(32))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class Note(Base):
    """A note in a threat model."""

    __tablename__ = "notes"
    __table_args__ = (
        Index("idx_notes_tm", "threat_model_id"),
        Index("idx_notes_tm_created", "threat_model_id", "created_at"),
        Index("idx_notes_tm_modified", "threat_model_id", "modified_at"),
        Index("uniq_notes_tm_alias", "threat_model_id", "alias", unique=True),
        Index("idx_notes_name", "name"),
        Index("idx_notes_created", "created_at"),
        Index("idx_notes_modified", "modified_at"),
        Index("idx_notes_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_notes_threat_model"))
    name: Mapped[Name]
    content: Mapped[str]
    description: Mapped[str | None]
    include_in_report: Mapped[TrueByDefault | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    auto_generated: Mapped[FalseByDefault | None]
    alias: Mapped[Alias]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Repository(Base):
    """A source repository that a threat model refers to."""

    __tablename__ = "repositories"
    __table_args__ = (
        Index("idx_repos_tm", "threat_model_id"),
        Index("idx_repos_tm_created", "threat_model_id", "created_at"),
        Index("idx_repos_tm_modified", "threat_model_id", "modified_at"),
        Index("uniq_repositories_tm_alias", "threat_model_id", "alias", unique=True),
        Index("idx_repos_name", "name"),
        Index("idx_repos_type", "type"),
        Index("idx_repos_created", "created_at"),
        Index("idx_repos_modified", "modified_at"),
        Index("idx_repos_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_repositories_threat_model"))
    name: Mapped[Name | None]
    uri: Mapped[str]
    description: Mapped[str | None]
    type: Mapped[str | None] = mapped_column(String(64))
    parameters: Mapped[Json | None]
    include_in_report: Mapped[TrueByDefault | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    alias: Mapped[Alias]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Metadata(Base):
    """A key and a value on any object."""

    __tablename__ = "metadata"
    __table_args__ = (
        Index("idx_metadata_entity_type_id", "entity_type", "entity_id"),
        Index("idx_metadata_unique", "entity_type", "entity_id", "key", unique=True),
        Index("idx_metadata_entity_created", "entity_type", "created_at"),
        Index("idx_metadata_entity_modified", "entity_type", "modified_at"),
        Index("idx_metadata_entity_id", "entity_id"),
        Index("idx_metadata_key_value", "entity_id", "key", "value"),
        Index("idx_metadata_key", "key"),
        Index("idx_metadata_created", "created_at"),
        Index("idx_metadata_modified", "modified_at"),
    )

    id: Mapped[UuidKey]
    entity_type: Mapped[str] = mapped_column(String(50))
    entity_id: Mapped[Uuid]
    key: Mapped[str] = mapped_column(String(256))
    value: Mapped[str] = mapped_column(String(1024))
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
