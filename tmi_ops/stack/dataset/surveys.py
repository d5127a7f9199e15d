"""Intake surveys: templates with versions, responses with answers, and their triage."""

from __future__ import annotations

from typing import Any

from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.metadata import add_metadata
from tmi_ops.stack.dataset.parts import ThreatModel
from tmi_ops.stack.dataset.threat_models import add_access
from tmi_ops.stack.dataset.vocabulary import PARTS, SUBJECTS
from tmi_ops.stack.dataset.world import Row, Rows, Survey, World, as_json

STATUSES = ("draft", "submitted", "needs_revision", "ready_for_review", "review_created")
MAPPED_FIELDS = ("name", "description", "issue_uri", None, None, None)
TOPICS = ("data", "access", "hosting", "partners", "recovery", "logging", "encryption", "users", "privacy", "changes")


def add_surveys(world: World, rows: Rows, count: int) -> None:
    """`count` survey templates, each with one to three published versions."""
    for number in range(count):
        _add_template(world, rows, number)


def add_response(world: World, rows: Rows, model: ThreatModel) -> None:
    """A response to a survey, which led to `model` or is linked to it."""
    chance, calendar = world.chance, world.calendar
    survey = chance.pick(world.surveys)
    status = chance.pick(STATUSES)
    response, owner = chance.uuid(), model.owner
    created = calendar.moment(max(survey.since, owner.since))
    submitted = calendar.later(created, 5) if status != "draft" else None
    reviewed = calendar.later(submitted, 9) if submitted and status in ("needs_revision", "review_created") else None
    answers = {question["name"]: _answer(world, question, model.name) for question in survey.questions}
    rows["survey_responses"].append(
        {
            "id": response,
            "template_id": survey.id,
            "template_version": survey.version,
            "status": status,
            "is_confidential": chance.likely(0.06),
            "answers": as_json(answers),
            "ui_state": as_json({"page": chance.span(0, 3), "completed": bool(submitted)}),
            "survey_json": survey.definition,
            "linked_threat_model_id": model.id if status == "ready_for_review" else None,
            "created_threat_model_id": model.id if status == "review_created" else None,
            "revision_notes": world.prose.sentences(chance, "review", 2, model.name)
            if status == "needs_revision"
            else None,
            "owner_internal_uuid": owner.id,
            "created_at": calendar.stamp(created),
            "modified_at": calendar.stamp(reviewed or submitted or created),
            "submitted_at": calendar.stamp(submitted) if submitted else None,
            "reviewed_at": calendar.stamp(reviewed) if reviewed else None,
            "reviewed_by_internal_uuid": world.user().id if reviewed else None,
            "project_id": chance.pick(world.projects).id if chance.likely(0.5) else None,
            "version": chance.span(1, 6),
        }
    )
    add_metadata(world, rows, "survey_response", response, created, mean=0.5)
    add_access(world, rows, "survey_response", response, [owner], [chance.pick(world.group_ids)], created)
    _add_answers(world, rows, response, survey, answers, status, created)
    if submitted:
        _add_triage_notes(world, rows, response, model.name, submitted)


def _add_template(world: World, rows: Rows, number: int) -> None:
    chance, calendar = world.chance, world.calendar
    template, author = chance.uuid(), world.user()
    name = f"{chance.pick(SUBJECTS)} intake for {chance.pick(PARTS)} {number}"
    since = calendar.moment(before=calendar.end // 3)
    versions = chance.span(1, 3)
    questions: tuple[Any, ...] = ()
    definition = ""
    moment = since
    for version in range(1, versions + 1):
        questions = tuple(_question(world, position, topic) for position, topic in enumerate(TOPICS * 2))
        definition = _definition(name, questions)
        moment = calendar.later(moment, 60)
        rows["survey_template_versions"].append(
            {
                "id": chance.uuid(),
                "template_id": template,
                "version": f"{version}.0",
                "survey_json": definition,
                "created_by_internal_uuid": author.id,
                "created_at": calendar.stamp(moment),
            }
        )
    rows["survey_templates"].append(
        {
            "id": template,
            "name": name,
            "description": world.prose.sentences(chance, "system", 2, name),
            "version": f"{versions}.0",
            "status": chance.pick(("active", "active", "inactive", "archived")),
            "survey_json": definition,
            "settings": as_json({"allow_threat_model_linking": chance.likely(0.7)}),
            "created_by_internal_uuid": author.id,
            "created_at": calendar.stamp(since),
            "modified_at": calendar.stamp(moment),
        }
    )
    add_metadata(world, rows, "survey", template, since)
    world.surveys.append(Survey(template, f"{versions}.0", definition, questions, moment))


def _question(world: World, position: int, topic: str) -> Row:
    chance = world.chance
    return {
        "name": f"{topic}_{position}",
        "type": chance.pick(("text", "comment", "boolean", "radiogroup")),
        "title": world.prose.sentences(chance, "question", 1, "your application"),
        "isRequired": chance.likely(0.4),
    }


def _definition(name: str, questions: tuple[Row, ...]) -> str:
    """The survey as SurveyJS describes one."""
    pages = [
        {"name": f"page{start // 5 + 1}", "elements": questions[start : start + 5]}
        for start in range(0, len(questions), 5)
    ]
    return as_json({"title": name, "pages": pages, "showProgressBar": "top"})


def _answer(world: World, question: Row, subject: str) -> str | bool:
    chance: Chance = world.chance
    if question["type"] == "boolean":
        return chance.likely(0.5)
    if question["type"] == "radiogroup":
        return chance.pick(("yes", "no", "partly", "unknown"))
    return world.prose.sentences(chance, "system", 1 if question["type"] == "text" else 3, subject)


def _add_answers(
    world: World, rows: Rows, response: str, survey: Survey, answers: dict[str, Any], status: str, created: int
) -> None:
    chance = world.chance
    for question in survey.questions:
        rows["survey_answers"].append(
            {
                "id": chance.uuid(),
                "response_id": response,
                "question_name": question["name"],
                "question_type": question["type"],
                "question_title": question["title"],
                "maps_to_tm_field": chance.pick(MAPPED_FIELDS),
                "answer_value": as_json(answers[question["name"]]),
                "response_status": status,
                "created_at": world.calendar.stamp(created),
            }
        )


def _add_triage_notes(world: World, rows: Rows, response: str, subject: str, submitted: int) -> None:
    chance, calendar = world.chance, world.calendar
    moment = submitted
    for number in range(1, 2 + chance.few(0.6, 5)):
        moment = calendar.later(moment, 3)
        rows["triage_notes"].append(
            {
                "survey_response_id": response,
                "id": number,
                "name": f"{chance.pick(SUBJECTS)} {number}",
                "content": world.prose.sentences(chance, "review", chance.span(1, 5), subject),
                "created_by_internal_uuid": world.user().id,
                "modified_by_internal_uuid": world.user().id if chance.likely(0.3) else None,
                "created_at": calendar.stamp(moment),
                "modified_at": calendar.stamp(moment),
            }
        )
