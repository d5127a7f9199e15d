from __future__ import annotations

from pathlib import Path

from tmi_ops.health.registry import PROBES

TEXT = (Path(__file__).parents[2] / "docs" / "health.md").read_text()


def test_the_documentation_names_every_probe_with_its_figure_and_its_limits() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in TEXT.splitlines() if line.startswith("| `")}
    for probe in PROBES:
        row = rows[probe.name]
        for word in (probe.title, probe.figure, probe.thresholds.describe()):
            assert f"| {word} |" in row, probe.name


def test_the_documentation_names_no_probe_that_is_not_there() -> None:
    section = TEXT.split("## Probes")[1].split("## Maintenance")[0]
    named = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    assert named == {probe.name for probe in PROBES}
