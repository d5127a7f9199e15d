"""The diagrams of a threat model as TMI's editor stores them: AntV X6 cells (nodes and edges) and a picture of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.parts import ThreatModel, add_part, part_life
from tmi_ops.stack.dataset.vocabulary import PARTS, PROCESS_KINDS, names
from tmi_ops.stack.dataset.world import Row, Rows, World, as_json

Cell: TypeAlias = dict[str, Any]

STORE_KINDS, ACTOR_KINDS, BOUNDARIES = names("store_kinds"), names("actor_kinds"), names("boundaries")
FLOWS, PROTOCOLS = names("flows"), names("protocols")
SIDES = ("top", "right", "bottom", "left")
COLUMN_WIDTH, ROW_HEIGHT, MARGIN = 240, 170, 60
SIZES: Mapping[str, tuple[int, int]] = {"process": (130, 70), "store": (150, 56), "actor": (110, 80)}
COLOURS: Mapping[str, tuple[str, str]] = {
    "process": ("#e8f1fd", "#1565c0"),
    "store": ("#eef7ee", "#2e7d32"),
    "actor": ("#fff6e5", "#b26a00"),
    "security-boundary": ("#fafafa", "#c62828"),
}
PORT_GROUPS = {
    side: {
        "position": side,
        "attrs": {"circle": {"r": 5, "magnet": "active", "stroke": "#000000", "fill": "#ffffff", "strokeWidth": 2}},
    }
    for side in SIDES
}
PORTS = {"groups": PORT_GROUPS, "items": [{"id": side, "group": side} for side in SIDES]}

VIEWS = ("context", "level 1", "level 2", "deployment", "sign in", "data flows")
PALETTE = ("#1565c0", "#2e7d32", "#b26a00")
# The guide's CHECK constraint (Constraint Enforcement).
DIAGRAM_TYPE = "DFD-1.0.0"


@dataclass(frozen=True)
class Drawing:
    """The cells of one diagram, and the names of what is in it by cell id (boundaries and flows left out)."""

    cells: list[Cell]
    components: Mapping[str, str]


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


def draw(chance: Chance, nodes: int) -> Drawing:
    """A diagram of `nodes` processes, stores and actors on a grid inside trust boundaries, joined by flows."""
    columns = max(2, round(nodes**0.5))
    boundaries = [_boundary(chance, index, columns, nodes) for index in range(1 + nodes // 9)]
    cells: list[Cell] = list(boundaries)
    components: dict[str, str] = {}
    placed: list[Cell] = []
    for index in range(nodes):
        node = _node(chance, index, columns, boundaries)
        placed.append(node)
        components[node["id"]] = node["attrs"]["text"]["text"]
    cells += placed
    for index in range(1, nodes):
        cells.append(_flow(chance, placed[chance.span(max(0, index - columns - 1), index - 1)], placed[index]))
    cells += [_flow(chance, *chance.sample(placed, 2)) for _ in range(chance.span(0, nodes // 2))]
    for position, cell in enumerate(cells):
        cell["zIndex"] = position + 1
    return Drawing(cells, components)


def picture(cells: list[Cell]) -> str:
    """The diagram as the base64 of an SVG, as TMI stores it beside the cells."""
    shapes = [
        f'<g id="{cell["id"]}" transform="translate({cell["x"]} {cell["y"]})"><rect width="{cell["width"]}" '
        f'height="{cell["height"]}" fill="{cell["attrs"]["body"]["fill"]}" stroke="{cell["attrs"]["body"]["stroke"]}"/>'
        f'<text x="8" y="20">{escape(cell["attrs"]["text"]["text"])}</text></g>'
        for cell in cells
        if cell["shape"] != "edge"
    ]
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="Roboto" font-size="12">{"".join(shapes)}</svg>'
    return base64.b64encode(svg.encode()).decode()


def _boundary(chance: Chance, index: int, columns: int, nodes: int) -> Cell:
    rows = -(-nodes // columns)
    return {
        "id": chance.uuid(),
        "shape": "security-boundary",
        "x": MARGIN // 2 + index * chance.span(20, 60),
        "y": MARGIN // 2 + index * 2 * ROW_HEIGHT,
        "width": columns * COLUMN_WIDTH,
        "height": max(2, rows - 2 * index) * ROW_HEIGHT,
        "visible": True,
        "attrs": _attributes("security-boundary", chance.pick(BOUNDARIES)),
        "data": {"_metadata": []},
    }


def _node(chance: Chance, index: int, columns: int, boundaries: list[Cell]) -> Cell:
    shape = chance.pick(("process", "process", "process", "store", "store", "actor"))
    kinds = {"process": PROCESS_KINDS, "store": STORE_KINDS, "actor": ACTOR_KINDS}[shape]
    name = chance.pick(kinds) if shape == "actor" else f"{chance.pick(PARTS)} {chance.pick(kinds)}"
    width, height = SIZES[shape]
    cell: Cell = {
        "id": chance.uuid(),
        "shape": shape,
        "x": MARGIN + index % columns * COLUMN_WIDTH + 10 * chance.span(0, 6),
        "y": MARGIN + index // columns * ROW_HEIGHT + 10 * chance.span(0, 5),
        "width": width,
        "height": height,
        "visible": True,
        "attrs": _attributes(shape, name),
        "ports": PORTS,
        "data": {"_metadata": _cell_metadata(chance)},
    }
    if shape != "actor":
        cell["parent"] = chance.pick(boundaries)["id"]
    return cell


def _flow(chance: Chance, source: Cell, target: Cell) -> Cell:
    bends = [{"x": target["x"] - 40, "y": source["y"] + 35}] if chance.likely(0.4) else []
    return {
        "id": chance.uuid(),
        "shape": "edge",
        "source": {"cell": source["id"], "port": chance.pick(SIDES)},
        "target": {"cell": target["id"], "port": chance.pick(SIDES)},
        "vertices": bends,
        "connector": {"name": "smooth"},
        "router": {"name": "normal"},
        "labels": [{"attrs": {"text": {"text": f"{chance.pick(FLOWS)} ({chance.pick(PROTOCOLS)})"}}, "position": 0.5}],
        "attrs": {"line": {"stroke": "#000000", "strokeWidth": 1, "targetMarker": {"name": "classic", "size": 8}}},
        "data": {"_metadata": _cell_metadata(chance)},
    }


def _attributes(shape: str, name: str) -> Cell:
    fill, stroke = COLOURS[shape]
    return {
        "body": {"fill": fill, "stroke": stroke, "strokeWidth": 2},
        "text": {"text": name, "fontSize": 12, "fontFamily": "Roboto Condensed", "fill": "#000000"},
    }


def _cell_metadata(chance: Chance) -> list[dict[str, str]]:
    if chance.likely(0.75):
        return []
    return [{"key": "classification", "value": chance.pick(("public", "internal", "confidential", "restricted"))}]
