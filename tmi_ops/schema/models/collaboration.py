"""Diagrams edited together."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Uuid, UuidKey


class CollaborationSession(Base):
    """A diagram opened for editing together."""

    __tablename__ = "collaboration_sessions"
    __table_args__ = (
        Index("idx_collaboration_sessions_threat_model_id", "threat_model_id"),
        Index("idx_collaboration_sessions_diagram_id", "diagram_id"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(
        ForeignKey("threat_models.id", name="fk_collaboration_sessions_threat_model")
    )
    diagram_id: Mapped[Uuid] = mapped_column(ForeignKey("diagrams.id", name="fk_collaboration_sessions_diagram"))
    websocket_url: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class SessionParticipant(Base):
    """A user in a collaboration session."""

    __tablename__ = "session_participants"
    __table_args__ = (
        Index("idx_session_participants_session_id", "session_id"),
        Index("idx_session_participants_user_internal_uuid", "user_internal_uuid"),
    )

    id: Mapped[UuidKey]
    session_id: Mapped[Uuid] = mapped_column(
        ForeignKey("collaboration_sessions.id", name="fk_session_participants_session")
    )
    user_internal_uuid: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_session_participants_user")
    )
    joined_at: Mapped[datetime]
    left_at: Mapped[datetime | None]
