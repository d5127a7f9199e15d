"""Settings of the server, and its limits for callers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, Uuid


class SystemSetting(Base):
    """A setting of the server."""

    __tablename__ = "system_settings"

    setting_key: Mapped[str] = mapped_column(String(256), primary_key=True)
    value: Mapped[str]
    setting_type: Mapped[str] = mapped_column(String(50))
    description: Mapped[str | None]
    modified_at: Mapped[datetime]
    modified_by: Mapped[Uuid | None]
    origin: Mapped[str | None] = mapped_column(String(16))


class UserApiQuota(Base):
    """A user's limits for calling the API."""

    __tablename__ = "user_api_quotas"

    user_internal_uuid: Mapped[Uuid] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_user_api_quotas_user"), primary_key=True
    )
    max_requests_per_minute: Mapped[int | None] = mapped_column(server_default=text("1000"))
    max_requests_per_hour: Mapped[int | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
