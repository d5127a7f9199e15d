"""Threat models and who may see them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Alias, Base, FalseByDefault, Name, Status, Uuid, UuidKey, Version
from tmi_ops.schema.models.domains import ACCESS_ROLES, FRAMEWORKS, allowed_values


class ThreatModel(Base):
    """A threat model."""

    __tablename__ = "threat_models"
    __table_args__ = (
        allowed_values("threat_models", "threat_model_framework", FRAMEWORKS),
        Index("idx_threat_models_owner_internal_uuid", "owner_internal_uuid"),
        Index("idx_tm_owner_created", "owner_internal_uuid", "created_at"),
        Index("idx_tm_created_by", "created_by_internal_uuid"),
        Index("idx_tm_framework", "threat_model_framework"),
        Index("idx_tm_status", "status"),
        Index("idx_tm_status_updated", "status_updated"),
        Index("uniq_threat_models_alias", "alias", unique=True),
        Index("idx_tm_security_reviewer", "security_reviewer_internal_uuid"),
        Index("idx_tm_project", "project_id"),
        Index("idx_tm_deleted_at", "deleted_at"),
        Index("idx_tm_last_accessed_at", "last_accessed_at"),
    )

    id: Mapped[UuidKey]
    owner_internal_uuid: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_threat_models_owner"))
    name: Mapped[Name]
    description: Mapped[str | None]
    created_by_internal_uuid: Mapped[Uuid]
    threat_model_framework: Mapped[str | None] = mapped_column(String(30), server_default="STRIDE")
    issue_uri: Mapped[str | None]
    status: Mapped[Status] = mapped_column(server_default="not_started")
    status_updated: Mapped[datetime] = mapped_column(server_default=text("CURRENT_TIMESTAMP"))
    alias: Mapped[Alias]
    is_confidential: Mapped[FalseByDefault | None]
    security_reviewer_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_threat_models_security_reviewer")
    )
    project_id: Mapped[Uuid | None] = mapped_column(ForeignKey("projects.id", name="fk_threat_models_project"))
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    last_accessed_at: Mapped[datetime | None]
    version: Mapped[Version]


class ThreatModelAccess(Base):
    """What a user or a group may do with a threat model."""

    __tablename__ = "threat_model_access"
    __table_args__ = (
        allowed_values("threat_model_access", "role", ACCESS_ROLES),
        Index("idx_threat_model_access_threat_model_id", "threat_model_id"),
        Index("idx_tma_perf", "threat_model_id", "subject_type", "user_internal_uuid", "group_internal_uuid"),
        Index("idx_tma_user", "user_internal_uuid"),
        Index("idx_tma_group", "group_internal_uuid"),
        Index("idx_tma_subject_type", "subject_type"),
        Index("idx_tma_role", "role"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(
        ForeignKey("threat_models.id", name="fk_threat_model_access_threat_model")
    )
    user_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_threat_model_access_user")
    )
    group_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("groups.internal_uuid", name="fk_threat_model_access_group")
    )
    subject_type: Mapped[str] = mapped_column(String(10))
    role: Mapped[str] = mapped_column(String(6))
    granted_by_internal_uuid: Mapped[Uuid | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class AliasCounter(Base):
    """The next short number for objects of a parent."""

    __tablename__ = "alias_counters"

    parent_id: Mapped[Uuid] = mapped_column(primary_key=True)
    object_type: Mapped[str] = mapped_column(String(16), primary_key=True)
    next_alias: Mapped[int] = mapped_column(Integer, server_default=text("1"))
