"""The 52 tables TMI needs, one module per domain. `Base.metadata` holds them all."""

from __future__ import annotations

from tmi_ops.schema.models import (
    audit,
    collaboration,
    content,
    feedback,
    identity,
    projects,
    surveys,
    system,
    teams,
    threat_models,
    threats,
    timmy,
    webhooks,
)
from tmi_ops.schema.models.base import Base

__all__ = [
    "Base",
    "audit",
    "collaboration",
    "content",
    "feedback",
    "identity",
    "projects",
    "surveys",
    "system",
    "teams",
    "threat_models",
    "threats",
    "timmy",
    "webhooks",
]
