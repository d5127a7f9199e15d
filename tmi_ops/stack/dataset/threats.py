"""The assets of a threat model and the threats to them."""

from __future__ import annotations

from collections.abc import Mapping

from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.parts import ThreatModel, add_part, part_life
from tmi_ops.stack.dataset.vocabulary import PARTS, names
from tmi_ops.stack.dataset.world import Row, Rows, World, as_json, link

ASSET_TYPES = ("data", "data", "hardware", "software", "infrastructure", "service", "personnel")
ASSET_KINDS = ("records", "keys", "hosts", "credentials", "reports", "devices")
CLASSES = ("PII", "PCI", "PHI", "secret", "internal", "public")
THREAT_TYPES: Mapping[str, tuple[str, ...]] = {
    "STRIDE": names("stride"),
    "LINDDUN": names("linddun"),
    "CIA": names("cia"),
    "DIE": names("die"),
    "PLOT4ai": names("plot4ai"),
}
# The guide's CHECK constraints (Constraint Enforcement); what is common is listed twice.
SEVERITIES = ("Low", "Medium", "Medium", "High", "Critical", "Unknown", "None")
LIKELIHOODS = ("low", "medium", "high")
RISK_LEVELS = ("low", "medium", "high", "critical")
PRIORITIES = ("immediate", "high", "medium", "low", "deferred")
SETTLED = ("resolved", "accepted")
STATUSES = ("open", "open", "confirmed", "mitigation_planned", "mitigation_in_progress", *SETTLED)


def add_assets(world: World, rows: Rows, model: ThreatModel) -> None:
    """Two assets or more."""
    chance = world.chance
    for _ in range(2 + chance.few(5, 25)):
        name = f"{chance.pick(PARTS)} {chance.pick(ASSET_KINDS)}"
        version = 1 + chance.few(0.6, 8)
        columns: Row = {
            "name": name,
            "description": world.prose.sentences(chance, "system", chance.span(1, 3), name),
            "type": chance.pick(ASSET_TYPES),
            "criticality": chance.pick(("low", "medium", "high", "mission critical")),
            "classification": as_json(chance.sample(CLASSES, chance.span(1, 2))),
            "sensitivity": chance.pick(("public", "internal", "confidential", "restricted")),
            "include_in_report": chance.likely(0.95),
            "timmy_enabled": chance.likely(0.9),
            "version": version,
        }
        life = part_life(world, model)
        model.assets.append(add_part(world, rows, model, "asset", life, columns, version=version, metadata=0.4))


def add_threats(world: World, rows: Rows, model: ThreatModel) -> None:
    """Four threats or more, most of them at a component of a diagram."""
    chance = world.chance
    diagrams = tuple(model.diagrams)
    for _ in range(4 + chance.few(14, 90)):
        diagram = chance.pick(diagrams)
        cell, component = chance.pick(tuple(model.diagrams[diagram].items()))
        on_diagram = chance.likely(0.75)
        version = 1 + chance.few(1.2, 15)
        columns: Row = {
            "diagram_id": diagram if on_diagram else None,
            "cell_id": cell if on_diagram else None,
            "asset_id": chance.pick(model.assets) if chance.likely(0.4) else None,
            **_description(world, model.framework, component),
            **_judgement(chance),
            "issue_uri": link(chance, "browse", f"SEC-{chance.span(100, 99_999)}") if chance.likely(0.3) else None,
            "include_in_report": chance.likely(0.95),
            "timmy_enabled": chance.likely(0.9),
            "auto_generated": chance.likely(0.25),
            "version": version,
        }
        life = part_life(world, model)
        model.threats.append(add_part(world, rows, model, "threat", life, columns, version=version, metadata=0.6))


def _description(world: World, framework: str, component: str) -> Row:
    chance = world.chance
    kind = chance.pick(THREAT_TYPES[framework])
    mitigated = chance.likely(0.85)
    return {
        "name": f"{kind} at {component}",
        "description": world.prose.sentences(chance, "threat", chance.span(1, 5), component),
        "threat_type": as_json([kind]),
        "cwe_id": as_json([f"CWE-{chance.span(20, 1390)}"]) if chance.likely(0.6) else None,
        "mitigation": world.prose.sentences(chance, "mitigation", chance.span(1, 4), component) if mitigated else None,
    }


def _judgement(chance: Chance) -> Row:
    status = chance.pick(STATUSES)
    return {
        "severity": chance.pick(SEVERITIES) if chance.likely(0.95) else None,
        "likelihood": chance.pick(LIKELIHOODS) if chance.likely(0.8) else None,
        "risk_level": chance.pick(RISK_LEVELS) if chance.likely(0.8) else None,
        "score": chance.span(0, 100) / 10 if chance.likely(0.7) else None,
        "priority": chance.pick(PRIORITIES),
        "status": status,
        "mitigated": status in SETTLED,
        "cvss": _cvss(chance) if chance.likely(0.4) else None,
        "ssvc": _ssvc(chance) if chance.likely(0.15) else None,
    }


def _cvss(chance: Chance) -> str:
    vector = (
        f"CVSS:3.1/AV:{chance.pick('NALP')}/AC:{chance.pick('LH')}/PR:{chance.pick('NLH')}/UI:{chance.pick('NR')}"
        f"/S:{chance.pick('UC')}/C:{chance.pick('NLH')}/I:{chance.pick('NLH')}/A:{chance.pick('NLH')}"
    )
    return as_json([{"vector": vector, "score": chance.span(10, 100) / 10}])


def _ssvc(chance: Chance) -> str:
    vector = f"SSVCv2/E:{chance.pick('NPA')}/A:{chance.pick('YN')}/T:{chance.pick('PT')}/"
    return as_json({"vector": vector, "decision": chance.pick(("Defer", "Scheduled", "Out-of-Cycle", "Immediate"))})
