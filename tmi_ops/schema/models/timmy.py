"""Timmy, the assistant: conversations, embeddings and usage."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Counter, Json, Name, Uuid, UuidKey


class TimmySession(Base):
    """A conversation about a threat model."""

    __tablename__ = "timmy_sessions"
    __table_args__ = (
        Index("idx_timmy_sessions_tm", "threat_model_id"),
        Index("idx_timmy_sessions_tm_user", "threat_model_id", "user_id"),
        Index("idx_timmy_sessions_user", "user_id"),
        Index("idx_timmy_sessions_status", "status"),
        Index("idx_timmy_sessions_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_timmy_sessions_threat_model"))
    user_id: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_timmy_sessions_user"))
    title: Mapped[Name | None]
    source_snapshot: Mapped[Json | None]
    system_prompt_hash: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(20), server_default="active")
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class TimmyMessage(Base):
    """A message of a conversation."""

    __tablename__ = "timmy_messages"
    __table_args__ = (
        Index("idx_timmy_messages_session", "session_id"),
        Index("idx_timmy_messages_session_seq", "session_id", "sequence", unique=True),
    )

    id: Mapped[UuidKey]
    session_id: Mapped[Uuid] = mapped_column(ForeignKey("timmy_sessions.id", name="fk_timmy_messages_session"))
    role: Mapped[str] = mapped_column(String(20))
    content: Mapped[str]
    token_count: Mapped[Counter | None]
    sequence: Mapped[int]
    created_at: Mapped[datetime]


class TimmyEmbedding(Base):
    """A chunk of text and its vector."""

    __tablename__ = "timmy_embeddings"
    __table_args__ = (
        Index("idx_timmy_embeddings_tm", "threat_model_id"),
        Index(
            "idx_timmy_embeddings_entity", "threat_model_id", "entity_type", "entity_id", "chunk_index", "index_type"
        ),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(
        ForeignKey("threat_models.id", name="fk_timmy_embeddings_threat_model")
    )
    entity_type: Mapped[str] = mapped_column(String(30))
    entity_id: Mapped[Uuid]
    chunk_index: Mapped[int]
    index_type: Mapped[str] = mapped_column(String(10), server_default="text")
    content_hash: Mapped[str] = mapped_column(String(64))
    embedding_model: Mapped[str] = mapped_column(String(100))
    embedding_dim: Mapped[int]
    vector_data: Mapped[bytes | None]
    chunk_text: Mapped[str]
    created_at: Mapped[datetime]


class TimmyUsage(Base):
    """Tokens used in a period."""

    __tablename__ = "timmy_usage"
    __table_args__ = (
        Index("idx_timmy_usage_user", "user_id"),
        Index("idx_timmy_usage_session", "session_id"),
        Index("idx_timmy_usage_tm", "threat_model_id"),
        Index("idx_timmy_usage_period", "period_start"),
    )

    id: Mapped[UuidKey]
    user_id: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_timmy_usage_user"))
    session_id: Mapped[Uuid] = mapped_column(ForeignKey("timmy_sessions.id", name="fk_timmy_usage_session"))
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_timmy_usage_threat_model"))
    message_count: Mapped[Counter | None]
    prompt_tokens: Mapped[Counter | None]
    completion_tokens: Mapped[Counter | None]
    embedding_tokens: Mapped[Counter | None]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime]
