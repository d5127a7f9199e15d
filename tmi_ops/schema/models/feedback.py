"""What users say of TMI and of its content."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Json, Uuid, UuidKey


class UsabilityFeedback(Base):
    """Feedback on the product."""

    __tablename__ = "usability_feedback"
    __table_args__ = (
        Index("idx_usability_feedback_sentiment", "sentiment"),
        Index("idx_usability_feedback_surface", "surface"),
        Index("idx_usability_feedback_created_by", "created_by"),
        Index("idx_usability_feedback_created_at", "created_at"),
    )

    id: Mapped[UuidKey]
    sentiment: Mapped[str] = mapped_column(String(8))
    verbatim: Mapped[str | None]
    surface: Mapped[str] = mapped_column(String(32))
    client_id: Mapped[str] = mapped_column(String(32))
    client_version: Mapped[str | None] = mapped_column(String(32))
    client_build: Mapped[str | None] = mapped_column(String(12))
    user_agent: Mapped[str | None] = mapped_column(String(512))
    user_agent_data: Mapped[Json | None]
    viewport: Mapped[str | None] = mapped_column(String(11))
    screenshot: Mapped[str | None]
    created_by: Mapped[Uuid]
    created_at: Mapped[datetime]


class ContentFeedback(Base):
    """Feedback on an object of a threat model."""

    __tablename__ = "content_feedback"
    __table_args__ = (
        Index("idx_content_feedback_target", "threat_model_id", "target_type", "target_id"),
        Index("idx_content_feedback_sentiment", "sentiment"),
        Index("idx_content_feedback_fp_reason", "false_positive_reason"),
        Index("idx_content_feedback_created_at", "created_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(
        ForeignKey("threat_models.id", name="fk_content_feedback_threat_model")
    )
    target_type: Mapped[str] = mapped_column(String(24))
    target_id: Mapped[Uuid]
    target_field: Mapped[str | None] = mapped_column(String(64))
    sentiment: Mapped[str] = mapped_column(String(8))
    verbatim: Mapped[str | None]
    false_positive_reason: Mapped[str | None] = mapped_column(String(32))
    false_positive_subreason: Mapped[str | None] = mapped_column(String(40))
    client_id: Mapped[str] = mapped_column(String(32))
    client_version: Mapped[str | None] = mapped_column(String(32))
    screenshot: Mapped[str | None]
    created_by: Mapped[Uuid]
    created_at: Mapped[datetime]
