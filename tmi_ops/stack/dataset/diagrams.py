"""The diagrams of a threat model."""

from __future__ import annotations

from tmi_ops.stack.dataset.drawing import draw, picture
from tmi_ops.stack.dataset.parts import ThreatModel, add_part, part_life
from tmi_ops.stack.dataset.world import Row, Rows, World, as_json

VIEWS = ("context", "level 1", "level 2", "deployment", "sign in", "data flows")
PALETTE = ("#1565c0", "#2e7d32", "#b26a00")
# The guide's CHECK constraint (Constraint Enforcement).
DIAGRAM_TYPE = "DFD-1.0.0"


def add_diagrams(world: World, rows: Rows, model: ThreatModel) -> None:
    """One diagram or a few, each with its components known to the threat model."""
    chance = world.chance
    for _ in range(1 + chance.few(1.2, 6)):
        drawing = draw(chance, 5 + chance.few(8, 45))
        component = chance.pick(tuple(drawing.components.values()))
        version = 1 + chance.few(5, 30)
        drawn = chance.likely(0.5)
        columns: Row = {
            "name": f"{component} {chance.pick(VIEWS)}",
            "description": world.prose.sentences(chance, "system", chance.span(1, 3), component),
            "type": DIAGRAM_TYPE,
            "content": world.prose.sentences(chance, "review", 1, component) if chance.likely(0.2) else None,
            "cells": as_json(drawing.cells),
            "color_palette": as_json(PALETTE) if chance.likely(0.3) else None,
            "svg_image": picture(drawing.cells) if drawn else None,
            "image_update_vector": version if drawn else None,
            "update_vector": version,
            "include_in_report": chance.likely(0.9),
            "timmy_enabled": chance.likely(0.9),
            "auto_generated": chance.likely(0.15),
            "version": version,
        }
        life = part_life(world, model)
        diagram = add_part(
            world, rows, model, "diagram", life, columns, version=version, metadata=1, cells=drawing.cells
        )
        model.diagrams[diagram] = drawing.components
