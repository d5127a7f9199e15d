"""What a threat model was written from: documents, notes and source repositories."""

from __future__ import annotations

from tmi_ops.stack.dataset.parts import Life, ThreatModel, add_part, part_life
from tmi_ops.stack.dataset.vocabulary import NOTE_KINDS, PARTS, PROCESS_KINDS, SUBJECTS
from tmi_ops.stack.dataset.world import Row, Rows, World, as_json, link, slug

MIME_TYPES = ("application/vnd.google-apps.document", "application/pdf", "text/markdown")
CONTENT_SOURCES = ("google_workspace", "confluence", "http", "microsoft_graph")
REFUSALS = ("pending_access", "auth_required")
ACCESS_STATUSES = ("accessible", "accessible", "accessible", "unknown", *REFUSALS)
REPOSITORY_TYPES = ("git", "git", "git", "git", "svn", "mercurial", "other")


def add_documents(world: World, rows: Rows, model: ThreatModel) -> None:
    """Documents that live elsewhere; about half of them were extracted."""
    chance = world.chance
    for _ in range(chance.few(3, 15)):
        name = f"{chance.pick(PARTS)} {chance.pick(SUBJECTS).lower()} {chance.pick(NOTE_KINDS)}"
        version = 1 + chance.few(0.5, 6)
        life = part_life(world, model)
        columns: Row = {
            "name": name,
            "uri": link(chance, "pages", str(chance.span(10_000, 9_999_999)), slug(name)),
            "description": world.prose.sentences(chance, "system", chance.span(1, 2), model.name),
            "include_in_report": chance.likely(0.9),
            "timmy_enabled": chance.likely(0.8),
            **_access(world, life),
            "version": version,
        }
        document = add_part(world, rows, model, "document", life, columns, version=version, metadata=0.5)
        model.documents[document] = name
        if chance.likely(0.5):
            _add_extraction(world, rows, document, life.created)


def add_notes(world: World, rows: Rows, model: ThreatModel) -> None:
    """Notes in Markdown."""
    chance = world.chance
    for _ in range(chance.few(2.5, 12)):
        title = f"{chance.pick(SUBJECTS)} {chance.pick(NOTE_KINDS)}"
        content = world.prose.markdown(chance, title, model.name, chance.span(0, 4))
        columns: Row = {
            "name": title,
            "content": content,
            "description": world.prose.sentences(chance, "review", 1, model.name) if chance.likely(0.5) else None,
            "include_in_report": chance.likely(0.7),
            "timmy_enabled": chance.likely(0.9),
            "auto_generated": chance.likely(0.2),
        }
        life, version = part_life(world, model), 1 + chance.few(1, 12)
        note = add_part(world, rows, model, "note", life, columns, version=version, metadata=0.3)
        model.notes[note] = content


def add_repositories(world: World, rows: Rows, model: ThreatModel) -> None:
    """Repositories with the place in them that was looked at."""
    chance = world.chance
    for _ in range(chance.few(1.3, 8)):
        name = f"{slug(chance.pick(PARTS))}-{slug(chance.pick(PROCESS_KINDS))}"
        parameters = {
            "refType": "branch",
            "refValue": chance.pick(("main", "develop", "release/2.4", "v3")),
            "subPath": chance.pick(("/", "/services", "/cmd/server")),
        }
        columns: Row = {
            "name": name,
            "uri": link(chance, chance.pick(PARTS).lower(), f"{name}.git"),
            "description": world.prose.sentences(chance, "system", 1, name),
            "type": chance.pick(REPOSITORY_TYPES),
            "parameters": as_json(parameters),
            "include_in_report": chance.likely(0.9),
            "timmy_enabled": chance.likely(0.9),
        }
        life, version = part_life(world, model), 1 + chance.few(0.4, 4)
        add_part(world, rows, model, "repository", life, columns, version=version, metadata=0.5)


def _access(world: World, life: Life) -> Row:
    """Whether TMI can read the document where it lives."""
    chance, calendar = world.chance, world.calendar
    picked = chance.likely(0.3)
    status = chance.pick(ACCESS_STATUSES)
    refused = status in REFUSALS
    return {
        "access_status": status,
        "content_source": chance.pick(CONTENT_SOURCES),
        "picker_provider_id": "google_workspace" if picked else None,
        "picker_file_id": chance.hexadecimal(44) if picked else None,
        "picker_mime_type": chance.pick(MIME_TYPES) if picked else None,
        "access_reason_code": "no_accessible_source" if refused else None,
        "access_reason_detail": "The provider answered 403 for the linked account." if refused else None,
        "access_status_updated_at": calendar.stamp(calendar.moment(life.created, life.modified)),
    }


def _add_extraction(world: World, rows: Rows, document: str, after: int) -> None:
    chance, calendar = world.chance, world.calendar
    queued = calendar.later(after, 3)
    finished = calendar.later(queued, 0.01)
    failed = chance.likely(0.1)
    rows["extraction_jobs"].append(
        {
            "job_id": chance.uuid(),
            "document_ref": document,
            "status": "failed" if failed else "completed",
            "reason_code": chance.pick(("timeout", "unsupported_type", "too_large")) if failed else None,
            "stage": chance.pick(("extract", "chunk", "embed")),
            "attempts": 3 if failed else chance.span(1, 2),
            "created_at": calendar.stamp(queued),
            "updated_at": calendar.stamp(finished),
            "completed_at": None if failed else calendar.stamp(finished),
        }
    )
