"""Surveys, the answers to them and their triage."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tmi_ops.schema.models.base import Base, FalseByDefault, Json, Name, Uuid, UuidKey, Version
from tmi_ops.schema.models.domains import ACCESS_ROLES, allowed_values


class SurveyTemplate(Base):
    """A survey."""

    __tablename__ = "survey_templates"
    __table_args__ = (
        Index("idx_st_name", "name"),
        Index("idx_st_name_version", "name", "version", unique=True),
        Index("idx_st_version", "version"),
        Index("idx_st_status", "status"),
        Index("idx_st_created_by", "created_by_internal_uuid"),
        Index("idx_st_created_at", "created_at"),
    )

    id: Mapped[UuidKey]
    name: Mapped[Name]
    description: Mapped[str | None]
    version: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(20), server_default="inactive")
    survey_json: Mapped[Json | None]
    settings: Mapped[Json | None]
    created_by_internal_uuid: Mapped[Uuid]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class SurveyTemplateVersion(Base):
    """A survey as it was at a version."""

    __tablename__ = "survey_template_versions"
    __table_args__ = (
        Index("idx_stv_template", "template_id"),
        Index("idx_stv_template_version", "template_id", "version", unique=True),
    )

    id: Mapped[UuidKey]
    template_id: Mapped[Uuid] = mapped_column(
        ForeignKey("survey_templates.id", name="fk_survey_template_versions_template")
    )
    version: Mapped[str] = mapped_column(String(64))
    survey_json: Mapped[Json | None]
    created_by_internal_uuid: Mapped[Uuid]
    created_at: Mapped[datetime]


class SurveyResponse(Base):
    """An answered survey."""

    __tablename__ = "survey_responses"
    __table_args__ = (
        Index("idx_sr_template", "template_id"),
        Index("idx_sr_template_status", "template_id", "status"),
        Index("idx_sr_status", "status"),
        Index("idx_sr_linked_tm", "linked_threat_model_id"),
        Index("idx_sr_created_tm", "created_threat_model_id"),
        Index("idx_sr_owner", "owner_internal_uuid"),
        Index("idx_sr_created_at", "created_at"),
        Index("idx_sr_submitted_at", "submitted_at"),
        Index("idx_sr_project", "project_id"),
    )

    id: Mapped[UuidKey]
    template_id: Mapped[Uuid] = mapped_column(ForeignKey("survey_templates.id", name="fk_survey_responses_template"))
    template_version: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(30), server_default="draft")
    is_confidential: Mapped[FalseByDefault | None]
    answers: Mapped[Json | None]
    ui_state: Mapped[Json | None]
    survey_json: Mapped[Json | None]
    linked_threat_model_id: Mapped[Uuid | None] = mapped_column(
        ForeignKey("threat_models.id", name="fk_survey_responses_linked_threat_model")
    )
    created_threat_model_id: Mapped[Uuid | None] = mapped_column(
        ForeignKey("threat_models.id", name="fk_survey_responses_created_threat_model")
    )
    revision_notes: Mapped[str | None]
    owner_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_survey_responses_owner")
    )
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    reviewed_at: Mapped[datetime | None]
    reviewed_by_internal_uuid: Mapped[Uuid | None]
    project_id: Mapped[Uuid | None] = mapped_column(ForeignKey("projects.id", name="fk_survey_responses_project"))
    version: Mapped[Version]


class SurveyResponseAccess(Base):
    """What a user or a group may do with a response."""

    __tablename__ = "survey_response_access"
    __table_args__ = (
        allowed_values("survey_response_access", "role", ACCESS_ROLES),
        Index("idx_sra_sr", "survey_response_id"),
        Index("idx_sra_perf", "survey_response_id", "subject_type", "user_internal_uuid", "group_internal_uuid"),
        Index("idx_sra_user", "user_internal_uuid"),
        Index("idx_sra_group", "group_internal_uuid"),
        Index("idx_sra_subject_type", "subject_type"),
        Index("idx_sra_role", "role"),
    )

    id: Mapped[UuidKey]
    survey_response_id: Mapped[Uuid] = mapped_column(
        ForeignKey("survey_responses.id", name="fk_survey_response_access_survey_response")
    )
    user_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_survey_response_access_user")
    )
    group_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("groups.internal_uuid", name="fk_survey_response_access_group")
    )
    subject_type: Mapped[str] = mapped_column(String(10))
    role: Mapped[str] = mapped_column(String(6))
    granted_by_internal_uuid: Mapped[Uuid | None] = mapped_column(
        ForeignKey("users.internal_uuid", name="fk_survey_response_access_granted_by")
    )
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class TriageNote(Base):
    """A note of a reviewer, numbered within its response."""

    __tablename__ = "triage_notes"
    __table_args__ = (
        Index("idx_tn_sr", "survey_response_id"),
        Index("idx_tn_created", "created_at"),
    )

    survey_response_id: Mapped[Uuid] = mapped_column(
        ForeignKey("survey_responses.id", name="fk_triage_notes_survey_response"), primary_key=True
    )
    id: Mapped[int] = mapped_column(autoincrement=False, primary_key=True)
    name: Mapped[Name]
    content: Mapped[str]
    created_by_internal_uuid: Mapped[Uuid | None]
    modified_by_internal_uuid: Mapped[Uuid | None]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]


class SurveyAnswer(Base):
    """One answer of a response."""

    __tablename__ = "survey_answers"
    __table_args__ = (
        Index("idx_sa_response_id", "response_id"),
        Index("idx_sa_response_mapping", "response_id", "maps_to_tm_field"),
    )

    id: Mapped[UuidKey]
    response_id: Mapped[Uuid] = mapped_column(
        ForeignKey("survey_responses.id", name="fk_survey_answers_survey_response")
    )
    question_name: Mapped[Name]
    question_type: Mapped[str] = mapped_column(String(64))
    question_title: Mapped[str | None]
    maps_to_tm_field: Mapped[str | None] = mapped_column(String(128))
    answer_value: Mapped[Json | None]
    response_status: Mapped[str] = mapped_column(String(30))
    created_at: Mapped[datetime]
