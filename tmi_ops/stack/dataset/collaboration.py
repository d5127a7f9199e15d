"""What people do together on a threat model: editing sessions and feedback on generated content."""

from __future__ import annotations

import base64

from tmi_ops.stack.dataset.parts import ThreatModel
from tmi_ops.stack.dataset.world import Rows, World

FALSE_POSITIVES = {
    "detection_misfired": ("code_does_not_exist", "wrong_component", None),
    "real_but_mitigated": (None,),
    "real_but_not_exploitable": (None,),
    "out_of_scope": ("third_party_component", "test_code", None),
    "intended_behavior": ("sanctioned_by_design", None),
    "duplicate": (None,),
}
CLIENT_VERSIONS = ("1.3.0", "1.4.2", "1.5.0", "1.5.1", "1.6.0")


def add_collaboration(world: World, rows: Rows, model: ThreatModel) -> None:
    """Editing sessions on the diagrams of a threat model, and feedback on what was generated in it."""
    for _ in range(world.chance.few(0.8, 6)):
        _add_session(world, rows, model)
    for _ in range(world.chance.few(1.0, 8)):
        _add_feedback(world, rows, model)


def _add_session(world: World, rows: Rows, model: ThreatModel) -> None:
    chance, calendar = world.chance, world.calendar
    session, diagram = chance.uuid(), chance.pick(list(model.diagrams))
    created = calendar.moment(model.life.created, model.life.modified)
    ended = created + chance.span(300, 7200)
    rows["collaboration_sessions"].append(
        {
            "id": session,
            "threat_model_id": model.id,
            "diagram_id": diagram,
            "websocket_url": f"wss://tmi.example.com/threat_models/{model.id}/diagrams/{diagram}/ws",
            "created_at": calendar.stamp(created),
            "expires_at": calendar.stamp(ended),
        }
    )
    for user in model.editors[: chance.span(1, 5)]:
        joined = chance.span(created, ended)
        rows["session_participants"].append(
            {
                "id": chance.uuid(),
                "session_id": session,
                "user_internal_uuid": user.id,
                "joined_at": calendar.stamp(joined),
                "left_at": calendar.stamp(chance.span(joined, ended)) if chance.likely(0.9) else None,
            }
        )


def _add_feedback(world: World, rows: Rows, model: ThreatModel) -> None:
    chance, calendar = world.chance, world.calendar
    kind = chance.pick(("threat", "threat", "threat_classification", "diagram", "note"))
    if kind == "note" and not model.notes:
        kind = "diagram"
    target = {
        "note": list(model.notes),
        "diagram": list(model.diagrams),
    }.get(kind, model.threats)
    sentiment = chance.pick(("up", "down"))
    reason = chance.pick(tuple(FALSE_POSITIVES)) if sentiment == "down" and kind == "threat" else None
    rows["content_feedback"].append(
        {
            "id": chance.uuid(),
            "threat_model_id": model.id,
            "target_type": kind,
            "target_id": chance.pick(target),
            "target_field": chance.pick(("cwe_id", "severity", "likelihood"))
            if kind.endswith("classification")
            else None,
            "sentiment": sentiment,
            "verbatim": world.prose.sentences(chance, "feedback", chance.span(1, 2), model.name),
            "false_positive_reason": reason,
            "false_positive_subreason": chance.pick(FALSE_POSITIVES[reason]) if reason else None,
            "client_id": "tmi-ux",
            "client_version": chance.pick(CLIENT_VERSIONS),
            "screenshot": screenshot(world) if chance.likely(0.05) else None,
            "created_by": chance.pick(model.editors).id,
            "created_at": calendar.stamp(calendar.moment(model.life.created, model.life.modified)),
        }
    )


def screenshot(world: World) -> str:
    """A picture as a data URL; a JPEG's bytes cannot be compressed any further, so chance stands for them."""
    content = base64.b64encode(world.chance.randbytes(world.chance.span(8_000, 30_000))).decode()
    return f"data:image/jpeg;base64,{content}"
