"""What a threat model is made of: diagrams, assets and threats."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import ForeignKey, Index, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import (
    Alias,
    Base,
    Counter,
    FalseByDefault,
    Json,
    Name,
    Status,
    TrueByDefault,
    Uuid,
    UuidKey,
    Version,
)
from tmi_ops.schema.models.domains import DIAGRAM_TYPES, LIKELIHOODS, RISK_LEVELS, SEVERITIES, allowed_values


class Diagram(Base):
    """A data flow diagram; its cells are JSON."""

    __tablename__ = "diagrams"
    __table_args__ = (
        allowed_values("diagrams", "type", DIAGRAM_TYPES),
        Index("idx_diagrams_threat_model_id", "threat_model_id"),
        Index("idx_diagrams_threat_model_id_type", "threat_model_id", "type"),
        Index("uniq_diagrams_tm_alias", "threat_model_id", "alias", unique=True),
        Index("idx_diagrams_type", "type"),
        Index("idx_diagrams_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_diagrams_threat_model"))
    name: Mapped[Name]
    description: Mapped[str | None]
    type: Mapped[str | None] = mapped_column(String(64))
    content: Mapped[str | None]
    cells: Mapped[Json | None]
    color_palette: Mapped[Json | None]
    svg_image: Mapped[str | None]
    image_update_vector: Mapped[int | None]
    update_vector: Mapped[Counter | None]
    include_in_report: Mapped[TrueByDefault | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    auto_generated: Mapped[FalseByDefault | None]
    alias: Mapped[Alias]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[Version]


class Asset(Base):
    """Something worth protecting."""

    __tablename__ = "assets"
    __table_args__ = (
        Index("idx_assets_tm", "threat_model_id"),
        Index("idx_assets_tm_created", "threat_model_id", "created_at"),
        Index("idx_assets_tm_modified", "threat_model_id", "modified_at"),
        Index("uniq_assets_tm_alias", "threat_model_id", "alias", unique=True),
        Index("idx_assets_name", "name"),
        Index("idx_assets_type", "type"),
        Index("idx_assets_created", "created_at"),
        Index("idx_assets_modified", "modified_at"),
        Index("idx_assets_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_assets_threat_model"))
    name: Mapped[Name]
    description: Mapped[str | None]
    type: Mapped[str] = mapped_column(String(64))
    criticality: Mapped[str | None] = mapped_column(String(128))
    classification: Mapped[str | None]
    sensitivity: Mapped[str | None] = mapped_column(String(128))
    include_in_report: Mapped[TrueByDefault | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    alias: Mapped[Alias]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[Version]


class Threat(Base):
    """A threat, its rating and its state."""

    __tablename__ = "threats"
    __table_args__ = (
        allowed_values("threats", "severity", SEVERITIES, or_null=True),
        allowed_values("threats", "likelihood", LIKELIHOODS, or_null=True),
        allowed_values("threats", "risk_level", RISK_LEVELS, or_null=True),
        Index("idx_threats_threat_model_id", "threat_model_id"),
        Index("idx_threats_threat_model_id_created_at", "threat_model_id", "created_at"),
        Index("idx_threats_tm_modified", "threat_model_id", "modified_at"),
        Index("uniq_threats_tm_alias", "threat_model_id", "alias", unique=True),
        Index("idx_threats_diagram", "diagram_id"),
        Index("idx_threats_cell", "cell_id"),
        Index("idx_threats_asset", "asset_id"),
        Index("idx_threats_name", "name"),
        Index("idx_threats_severity", "severity"),
        Index("idx_threats_risk_level", "risk_level"),
        Index("idx_threats_score", "score"),
        Index("idx_threats_priority", "priority"),
        Index("idx_threats_mitigated", "mitigated"),
        Index("idx_threats_status", "status"),
        Index("idx_threats_modified", "modified_at"),
        Index("idx_threats_deleted_at", "deleted_at"),
    )

    id: Mapped[UuidKey]
    threat_model_id: Mapped[Uuid] = mapped_column(ForeignKey("threat_models.id", name="fk_threats_threat_model"))
    diagram_id: Mapped[Uuid | None] = mapped_column(ForeignKey("diagrams.id", name="fk_threats_diagram"))
    cell_id: Mapped[Uuid | None]
    asset_id: Mapped[Uuid | None] = mapped_column(ForeignKey("assets.id", name="fk_threats_asset"))
    name: Mapped[Name]
    description: Mapped[str | None]
    severity: Mapped[str | None] = mapped_column(String(50))
    likelihood: Mapped[str | None] = mapped_column(String(50))
    risk_level: Mapped[str | None] = mapped_column(String(50))
    score: Mapped[Decimal | None] = mapped_column(Numeric(3, 1))
    priority: Mapped[str | None] = mapped_column(String(256))
    mitigated: Mapped[bool | None]
    include_in_report: Mapped[TrueByDefault | None]
    timmy_enabled: Mapped[TrueByDefault | None]
    auto_generated: Mapped[FalseByDefault | None]
    status: Mapped[Status | None]
    threat_type: Mapped[str]
    cwe_id: Mapped[str | None]
    cvss: Mapped[str | None]
    ssvc: Mapped[str | None]
    mitigation: Mapped[str | None]
    issue_uri: Mapped[str | None]
    alias: Mapped[Alias]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[Version]
