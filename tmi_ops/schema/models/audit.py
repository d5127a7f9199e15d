"""What was changed, and by whom. TMI databases may hold triggers that make these tables append-only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Email, Name, ProviderName, ProviderSubject, Uuid, UuidKey


class AuditEntry(Base):
    """A change to an object of a threat model."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("idx_audit_created_id", "created_at", "id"),
        Index("idx_audit_tm", "threat_model_id"),
        Index("idx_audit_tm_created", "threat_model_id", "created_at"),
        Index("idx_audit_object", "object_type", "object_id"),
        Index("idx_audit_object_version", "object_type", "object_id", "version"),
        Index("idx_audit_change_type", "change_type"),
        Index("idx_audit_actor", "actor_email", "created_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid]
    object_type: Mapped[str] = mapped_column(String(50))
    object_id: Mapped[Uuid]
    version: Mapped[int | None]
    change_type: Mapped[str] = mapped_column(String(20))
    actor_email: Mapped[Email]
    actor_provider: Mapped[ProviderName]
    actor_provider_id: Mapped[ProviderSubject]
    actor_display_name: Mapped[Name]
    change_summary: Mapped[str | None]
    created_at: Mapped[datetime]


class SystemAuditEntry(Base):
    """A change to a system setting."""

    __tablename__ = "system_audit_entries"
    __table_args__ = (
        Index("idx_sysaudit_created_id", "created_at", "id"),
        Index("idx_sysaudit_actor", "actor_email", "created_at"),
        Index("idx_sysaudit_field", "field_path"),
    )

    id: Mapped[UuidKey]
    actor_email: Mapped[Email]
    actor_provider: Mapped[ProviderName]
    actor_provider_id: Mapped[ProviderSubject]
    actor_display_name: Mapped[Name]
    http_method: Mapped[str] = mapped_column(String(10))
    http_path: Mapped[str]
    field_path: Mapped[str] = mapped_column(String(1024))
    old_value_redacted: Mapped[str | None]
    new_value_redacted: Mapped[str | None]
    change_summary: Mapped[str | None]
    created_at: Mapped[datetime]


class VersionSnapshot(Base):
    """An object as it was at a version."""

    __tablename__ = "version_snapshots"
    __table_args__ = (
        Index("idx_vs_audit_entry", "audit_entry_id"),
        Index("idx_vs_object", "object_type", "object_id", "version"),
        Index("idx_vs_object_snapshot", "object_type", "object_id", "snapshot_type"),
    )

    id: Mapped[UuidKey]
    audit_entry_id: Mapped[Uuid]
    object_type: Mapped[str] = mapped_column(String(50))
    object_id: Mapped[Uuid]
    version: Mapped[int]
    snapshot_type: Mapped[str] = mapped_column(String(20))
    data: Mapped[str | None]
    created_at: Mapped[datetime]
