"""Teams, their people and how teams relate."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Email, Name, Status, TrueByDefault, Uuid, UuidKey, Version


class Team(Base):
    """A team that owns projects."""

    __tablename__ = "teams"
    __table_args__ = (
        Index("idx_team_name", "name"),
        Index("idx_team_status", "status"),
        Index("idx_team_reviewed_at", "reviewed_at"),
        Index("idx_team_created_at", "created_at"),
    )

    id: Mapped[UuidKey]
    name: Mapped[Name]
    description: Mapped[str | None]
    uri: Mapped[str | None]
    email_address: Mapped[Email | None]
    status: Mapped[Status | None]
    created_by_internal_uuid: Mapped[Uuid]
    modified_by_internal_uuid: Mapped[Uuid | None]
    reviewed_by_internal_uuid: Mapped[Uuid | None]
    reviewed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    version: Mapped[Version]


class TeamMember(Base):
    """A user in a team."""

    __tablename__ = "team_members"
    __table_args__ = (
        Index("idx_tmem_team", "team_id"),
        Index("idx_tmem_team_user", "team_id", "user_internal_uuid", unique=True),
        Index("idx_tmem_user", "user_internal_uuid"),
    )

    id: Mapped[UuidKey]
    team_id: Mapped[Uuid] = mapped_column(ForeignKey("teams.id", name="fk_team_members_team"))
    user_internal_uuid: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_team_members_user"))
    role: Mapped[str] = mapped_column(String(64), server_default="engineer")
    custom_role: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime]


class TeamResponsibleParty(Base):
    """A user who answers for a team."""

    __tablename__ = "team_responsible_parties"
    __table_args__ = (
        Index("idx_trp_team", "team_id"),
        Index("idx_trp_team_user", "team_id", "user_internal_uuid", unique=True),
        Index("idx_trp_user", "user_internal_uuid"),
    )

    id: Mapped[UuidKey]
    team_id: Mapped[Uuid] = mapped_column(ForeignKey("teams.id", name="fk_team_responsible_parties_team"))
    user_internal_uuid: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_team_responsible_parties_user")
    )
    role: Mapped[str] = mapped_column(String(64))
    custom_role: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime]


class TeamRelationship(Base):
    """How one team relates to another."""

    __tablename__ = "team_relationships"
    __table_args__ = (
        Index("idx_trel_team", "team_id"),
        Index("idx_trel_team_related", "team_id", "related_team_id", unique=True),
        Index("idx_trel_related", "related_team_id"),
    )

    id: Mapped[UuidKey]
    team_id: Mapped[Uuid] = mapped_column(ForeignKey("teams.id", name="fk_team_relationships_team"))
    related_team_id: Mapped[Uuid] = mapped_column(ForeignKey("teams.id", name="fk_team_relationships_related_team"))
    relationship: Mapped[str] = mapped_column(String(64))
    custom_relationship: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime]


class TeamNote(Base):
    """A note about a team."""

    __tablename__ = "team_notes"
    __table_args__ = (
        Index("idx_tnote_team", "team_id"),
        Index("idx_tnote_team_name", "team_id", "name"),
        Index("idx_tnote_name", "name"),
        Index("idx_tnote_created", "created_at"),
    )

    id: Mapped[UuidKey]
    team_id: Mapped[Uuid] = mapped_column(ForeignKey("teams.id", name="fk_team_notes_team", ondelete="CASCADE"))
    name: Mapped[Name]
    content: Mapped[str]
    description: Mapped[str | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    sharable: Mapped[bool]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
