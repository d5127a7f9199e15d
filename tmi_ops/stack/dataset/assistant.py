"""Timmy, TMI's assistant: chats about a threat model, the embeddings of its texts, and what both cost."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.parts import ThreatModel
from tmi_ops.stack.dataset.world import Rows, World, as_json

EMBEDDING_MODEL = "text-embedding-3-small"
EMBEDDING_DIMENSIONS = 1536
CHUNK_CHARACTERS = 1200
CHARACTERS_A_TOKEN = 4
MOST_CHUNKS = 12
_COMPONENT_BITS = 32
# One float32 with a magnitude between 2^-6 and 2^-5: with chance in sign and mantissa, vectors come out near length 1.
_KEPT_BITS, _EXPONENT = 0x807FFFFF, 121 << 23


def add_chats(world: World, rows: Rows, model: ThreatModel) -> None:
    """Chats about a threat model, if anybody had any."""
    for _ in range(world.chance.few(0.7, 5)):
        _add_session(world, rows, model)


def add_embeddings(world: World, rows: Rows, model: ThreatModel) -> None:
    """The index of a threat model's texts: chunks with their vectors."""
    chance, calendar = world.chance, world.calendar
    summary = world.prose.sentences(chance, "system", chance.span(3, 12), model.name)
    texts = [("threat_model", model.id, summary)]
    texts += [("note", note, content) for note, content in model.notes.items()]
    texts += [
        ("document", document, world.prose.markdown(chance, name, model.name, chance.span(1, 4)))
        for document, name in model.documents.items()
    ]
    indexed = calendar.stamp(calendar.later(model.life.modified, 2))
    chunks = [
        (kind, entity, number, content[start : start + CHUNK_CHARACTERS])
        for kind, entity, content in texts
        for number, start in enumerate(range(0, len(content), CHUNK_CHARACTERS))
    ]
    for kind, entity, number, text in chunks[:MOST_CHUNKS]:
        rows["timmy_embeddings"].append(
            {
                "id": chance.uuid(),
                "threat_model_id": model.id,
                "entity_type": kind,
                "entity_id": entity,
                "chunk_index": number,
                "index_type": "text",
                "content_hash": hashlib.sha256(text.encode()).hexdigest(),
                "embedding_model": EMBEDDING_MODEL,
                "embedding_dim": EMBEDDING_DIMENSIONS,
                "vector_data": vector(chance),
                "chunk_text": text,
                "created_at": indexed,
            }
        )


def vector(chance: Chance, dimensions: int = EMBEDDING_DIMENSIONS) -> bytes:
    """An embedding as little-endian float32: as hard to compress as a real one."""
    kept, exponents = _float_masks(dimensions)
    return (chance.getrandbits(_COMPONENT_BITS * dimensions) & kept | exponents).to_bytes(4 * dimensions, "little")


@lru_cache(maxsize=1)
def _float_masks(dimensions: int) -> tuple[int, int]:
    ones = sum(1 << (_COMPONENT_BITS * position) for position in range(dimensions))
    return ones * _KEPT_BITS, ones * _EXPONENT


def _add_session(world: World, rows: Rows, model: ThreatModel) -> None:
    chance, calendar = world.chance, world.calendar
    session, user = chance.uuid(), chance.pick(model.editors)
    started = calendar.moment(model.life.created)
    component = chance.pick(list(chance.pick(list(model.diagrams.values())).values()))
    asked, answered, ended = _add_messages(world, rows, session, component, started)
    deleted = chance.likely(0.05)
    sources = {
        "notes": list(model.notes)[:5],
        "documents": list(model.documents)[:5],
        "threats": len(model.threats),
    }
    rows["timmy_sessions"].append(
        {
            "id": session,
            "threat_model_id": model.id,
            "user_id": user.id,
            "title": world.prose.sentences(chance, "question", 1, component)[:120],
            "source_snapshot": as_json(sources),
            "system_prompt_hash": chance.hexadecimal(64),
            "status": chance.pick(("active", "active", "archived")),
            "created_at": calendar.stamp(started),
            "modified_at": calendar.stamp(ended),
            "deleted_at": calendar.stamp(calendar.later(ended, 5)) if deleted else None,
        }
    )
    rows["timmy_usage"].append(
        {
            "id": chance.uuid(),
            "user_id": user.id,
            "session_id": session,
            "threat_model_id": model.id,
            "message_count": chance.span(2, 20),
            "prompt_tokens": asked + 2500,
            "completion_tokens": answered,
            "embedding_tokens": asked,
            "period_start": calendar.stamp(started),
            "period_end": calendar.stamp(ended),
        }
    )


def _add_messages(world: World, rows: Rows, session: str, component: str, started: int) -> tuple[int, int, int]:
    """Questions and answers in turn. Returns tokens asked, tokens answered, and the moment of the last message."""
    chance = world.chance
    tokens = {"user": 0, "assistant": 0}
    moment = started
    for sequence in range(1, 1 + 2 * (1 + chance.few(3, 15))):
        role, register, most = ("user", "question", 2) if sequence % 2 else ("assistant", "answer", 6)
        content = world.prose.sentences(chance, register, chance.span(1, most), component)
        size = len(content) // CHARACTERS_A_TOKEN
        tokens[role] += size
        moment += chance.span(4, 90)
        rows["timmy_messages"].append(
            {
                "id": chance.uuid(),
                "session_id": session,
                "role": role,
                "content": content,
                "token_count": size,
                "sequence": sequence,
                "created_at": world.calendar.stamp(moment),
            }
        )
    return tokens["user"], tokens["assistant"], moment
