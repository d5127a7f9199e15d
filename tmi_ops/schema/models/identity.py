"""Who uses TMI: users, groups, and how they sign in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import (
    Base,
    Email,
    FalseByDefault,
    Json,
    Name,
    ProviderName,
    ProviderSubject,
    TrueByDefault,
    Uuid,
    UuidKey,
)


class User(Base):
    """A person or an automation account, once per identity provider."""

    __tablename__ = "users"
    __table_args__ = (
        Index("idx_users_provider", "provider"),
        Index("idx_users_provider_lookup", "provider", "provider_user_id", unique=True),
        Index("idx_users_email", "email"),
        Index("idx_users_last_login", "last_login"),
    )

    internal_uuid: Mapped[UuidKey]
    provider: Mapped[ProviderName]
    provider_user_id: Mapped[ProviderSubject | None]
    email: Mapped[Email]
    name: Mapped[Name]
    email_verified: Mapped[FalseByDefault | None]
    access_token: Mapped[str | None]
    refresh_token: Mapped[str | None]
    token_expiry: Mapped[datetime | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    last_login: Mapped[datetime | None]
    automation: Mapped[bool | None]
    extraction_concurrency_override: Mapped[int | None]


class RefreshToken(Base):
    """A long-lived token with which a user renews a session."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (
        Index("idx_refresh_tokens_user_internal_uuid", "user_internal_uuid"),
        Index("idx_refresh_tokens_token", "token", unique=True),
    )

    id: Mapped[UuidKey]
    user_internal_uuid: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_refresh_tokens_user"))
    token: Mapped[str] = mapped_column(String(4000))
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]


class ClientCredential(Base):
    """A machine client of a user; only the hash of its secret is kept."""

    __tablename__ = "client_credentials"
    __table_args__ = (
        Index("idx_client_credentials_owner_uuid", "owner_uuid"),
        Index("idx_client_credentials_client_id", "client_id", unique=True),
    )

    id: Mapped[UuidKey]
    owner_uuid: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_client_credentials_owner"))
    client_id: Mapped[str] = mapped_column(String(1000))
    client_secret_hash: Mapped[str]
    name: Mapped[Name]
    description: Mapped[str | None]
    is_active: Mapped[TrueByDefault | None]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class UserContentToken(Base):
    """A user's encrypted tokens for a document provider."""

    __tablename__ = "user_content_tokens"
    __table_args__ = (
        Index("idx_uct_user", "user_id"),
        Index("uq_uct_user_provider", "user_id", "provider_id", unique=True),
        Index("idx_uct_status_expires", "status", "last_refresh_at"),
    )

    id: Mapped[UuidKey]
    user_id: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_user_content_tokens_owner", ondelete="CASCADE")
    )
    provider_id: Mapped[str] = mapped_column(String(64))
    access_token: Mapped[bytes]
    refresh_token: Mapped[bytes | None]
    scopes: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    status: Mapped[str | None] = mapped_column(String(16), server_default="active")
    last_refresh_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    provider_account_id: Mapped[str | None] = mapped_column(String(255))
    provider_account_label: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class LinkedIdentity(Base):
    """A further identity with which a user may sign in."""

    __tablename__ = "linked_identities"
    __table_args__ = (
        Index("idx_linked_user", "user_internal_uuid"),
        Index("uniq_linked_provider_sub", "provider", "provider_user_id", unique=True),
    )

    id: Mapped[UuidKey]
    user_internal_uuid: Mapped[Uuid]
    provider: Mapped[ProviderName]
    provider_user_id: Mapped[ProviderSubject]
    email: Mapped[Email | None]
    name: Mapped[Name | None]
    linked_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]


class UserPreferences(Base):
    """A user's settings in TMI's own clients."""

    __tablename__ = "user_preferences"
    __table_args__ = (Index("idx_user_preferences_user_internal_uuid", "user_internal_uuid", unique=True),)

    id: Mapped[UuidKey]
    user_internal_uuid: Mapped[Uuid] = mapped_column(ForeignKey("users.internal_uuid", name="fk_user_preferences_user"))
    preferences: Mapped[Json]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class Group(Base):
    """A group of an identity provider, or one of TMI itself."""

    __tablename__ = "groups"
    __table_args__ = (
        Index("idx_groups_provider", "provider"),
        Index("uniq_groups_provider_group_name", "provider", "group_name", unique=True),
        Index("idx_groups_group_name", "group_name"),
        Index("idx_groups_last_used", "last_used"),
    )

    internal_uuid: Mapped[UuidKey]
    provider: Mapped[ProviderName]
    group_name: Mapped[str] = mapped_column(String(500))
    name: Mapped[Name | None]
    description: Mapped[str | None]
    first_used: Mapped[datetime]
    last_used: Mapped[datetime]
    usage_count: Mapped[int | None] = mapped_column(server_default=text("1"))


class GroupMember(Base):
    """A user or a group that belongs to a group."""

    __tablename__ = "group_members"
    __table_args__ = (
        Index("idx_group_members_group_internal_uuid", "group_internal_uuid"),
        Index("idx_gm_group_user_type", "group_internal_uuid", "user_internal_uuid", "subject_type", unique=True),
        Index("idx_group_members_user_internal_uuid", "user_internal_uuid"),
        Index("idx_group_members_member_group_internal_uuid", "member_group_internal_uuid"),
    )

    id: Mapped[UuidKey]
    group_internal_uuid: Mapped[Uuid] = mapped_column(ForeignKey("groups.internal_uuid", name="fk_group_members_group"))
    user_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_group_members_user")
    )
    member_group_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("groups.internal_uuid", name="fk_group_members_member_group")
    )
    subject_type: Mapped[str] = mapped_column(String(10), server_default="user")
    added_by_internal_uuid: Mapped[Uuid | None]
    added_at: Mapped[datetime]
    notes: Mapped[str | None]
