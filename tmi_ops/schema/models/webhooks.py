"""Webhooks, the add-ons built on them, and their quotas."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Counter, FalseByDefault, Json, Name, Status, Uuid, UuidKey


class WebhookSubscription(Base):
    """Where events are delivered."""

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (
        Index("idx_webhook_subscriptions_owner_internal_uuid", "owner_internal_uuid"),
        Index("idx_webhook_subscriptions_threat_model_id", "threat_model_id"),
    )

    id: Mapped[UuidKey]
    owner_internal_uuid: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_webhook_subscriptions_owner")
    )
    threat_model_id: Mapped[Uuid | None] = mapped_column(
        ForeignKey("threat_models.id", name="fk_webhook_subscriptions_threat_model")
    )
    name: Mapped[Name]
    url: Mapped[str]
    events: Mapped[str]
    secret: Mapped[str | None] = mapped_column(String(128))
    status: Mapped[Status | None] = mapped_column(server_default="pending_verification")
    challenge: Mapped[str | None] = mapped_column(String(1000))
    challenges_sent: Mapped[Counter | None]
    timeout_count: Mapped[Counter | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    last_successful_use: Mapped[datetime | None]
    publication_failures: Mapped[Counter | None]
    operator_pinned: Mapped[FalseByDefault]


class WebhookQuota(Base):
    """A user's limits for webhooks."""

    __tablename__ = "webhook_quotas"

    owner_id: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_webhook_quotas_owner"), primary_key=True
    )
    max_subscriptions: Mapped[int | None] = mapped_column(server_default=text("10"))
    max_events_per_minute: Mapped[int | None] = mapped_column(server_default=text("12"))
    max_subscription_requests_per_minute: Mapped[int | None] = mapped_column(server_default=text("10"))
    max_subscription_requests_per_day: Mapped[int | None] = mapped_column(server_default=text("20"))
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class WebhookUrlDenyListEntry(Base):
    """A pattern of addresses that webhooks may not reach."""

    __tablename__ = "webhook_url_deny_list"
    __table_args__ = (Index("idx_webhook_deny_pattern", "pattern", unique=True),)

    id: Mapped[UuidKey]
    pattern: Mapped[str] = mapped_column(String(256))
    pattern_type: Mapped[str] = mapped_column(String(64))
    description: Mapped[str | None]
    created_at: Mapped[datetime]


class Addon(Base):
    """An add-on that a webhook serves."""

    __tablename__ = "addons"
    __table_args__ = (
        Index("idx_addons_webhook_id", "webhook_id"),
        Index("idx_addons_threat_model_id", "threat_model_id"),
    )

    id: Mapped[UuidKey]
    created_at: Mapped[datetime]
    name: Mapped[Name]
    webhook_id: Mapped[Uuid] = mapped_column(ForeignKey("webhook_subscriptions.id", name="fk_addons_webhook"))
    description: Mapped[str | None]
    icon: Mapped[str | None] = mapped_column(String(60))
    objects: Mapped[str | None]
    threat_model_id: Mapped[Uuid | None] = mapped_column(ForeignKey("threat_models.id", name="fk_addons_threat_model"))
    parameters: Mapped[Json | None]


class AddonInvocationQuota(Base):
    """A user's limits for invoking add-ons."""

    __tablename__ = "addon_invocation_quotas"

    owner_internal_uuid: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_addon_invocation_quotas_owner"), primary_key=True
    )
    max_active_invocations: Mapped[int | None] = mapped_column(server_default=text("3"))
    max_invocations_per_hour: Mapped[int | None] = mapped_column(server_default=text("10"))
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
