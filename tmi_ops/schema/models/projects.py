"""Projects, their people and how projects relate."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Name, Status, TrueByDefault, Uuid, UuidKey, Version


class Project(Base):
    """A project of a team."""

    __tablename__ = "projects"
    __table_args__ = (
        Index("idx_proj_name", "name"),
        Index("idx_proj_team", "team_id"),
        Index("idx_proj_status", "status"),
        Index("idx_proj_reviewed_at", "reviewed_at"),
        Index("idx_proj_created_at", "created_at"),
    )

    id: Mapped[UuidKey]
    name: Mapped[Name]
    description: Mapped[str | None]
    team_id: Mapped[Uuid] = mapped_column(ForeignKey("teams.id", name="fk_projects_team"))
    uri: Mapped[str | None]
    status: Mapped[Status | None]
    created_by_internal_uuid: Mapped[Uuid]
    modified_by_internal_uuid: Mapped[Uuid | None]
    reviewed_by_internal_uuid: Mapped[Uuid | None]
    reviewed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    version: Mapped[Version]


class ProjectResponsibleParty(Base):
    """A user who answers for a project."""

    __tablename__ = "project_responsible_parties"
    __table_args__ = (
        Index("idx_prp_project", "project_id"),
        Index("idx_prp_project_user", "project_id", "user_internal_uuid", unique=True),
        Index("idx_prp_user", "user_internal_uuid"),
    )

    id: Mapped[UuidKey]
    project_id: Mapped[Uuid] = mapped_column(ForeignKey("projects.id", name="fk_project_responsible_parties_project"))
    user_internal_uuid: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_project_responsible_parties_user")
    )
    role: Mapped[str] = mapped_column(String(64))
    custom_role: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime]


class ProjectRelationship(Base):
    """How one project relates to another."""

    __tablename__ = "project_relationships"
    __table_args__ = (
        Index("idx_prel_project", "project_id"),
        Index("idx_prel_project_related", "project_id", "related_project_id", unique=True),
        Index("idx_prel_related", "related_project_id"),
    )

    id: Mapped[UuidKey]
    project_id: Mapped[Uuid] = mapped_column(ForeignKey("projects.id", name="fk_project_relationships_project"))
    related_project_id: Mapped[Uuid] = mapped_column(
        ForeignKey("projects.id", name="fk_project_relationships_related_project")
    )
    relationship: Mapped[str] = mapped_column(String(64))
    custom_relationship: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime]


class ProjectNote(Base):
    """A note about a project."""

    __tablename__ = "project_notes"
    __table_args__ = (
        Index("idx_pnote_project", "project_id"),
        Index("idx_pnote_project_name", "project_id", "name"),
        Index("idx_pnote_name", "name"),
        Index("idx_pnote_created", "created_at"),
    )

    id: Mapped[UuidKey]
    project_id: Mapped[Uuid] = mapped_column(
        ForeignKey("projects.id", name="fk_project_notes_project", ondelete="CASCADE")
    )
    name: Mapped[Name]
    content: Mapped[str]
    description: Mapped[str | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    sharable: Mapped[bool]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
