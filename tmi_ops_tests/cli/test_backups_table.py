"""The table of `tmi-ops backups`, from built entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.cost.history import _base, _logical
from tmi_ops.cli.backup import _backups_table
from tmi_ops.cli.terminal import in_columns, out
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.manifest import Outcome, Verification

NOW = datetime.now(UTC)


def judged(outcome: Outcome, *reasons: str) -> Verification:
    return Verification(
        backup_id="x", outcome=outcome, reasons=reasons, verified_at=NOW, restore_seconds=20.0, server_version="17.1",
        tmi_ops_version="0", manifest_sha256="0" * 64,
    )  # fmt: skip


def shown(width: int, monkeypatch: pytest.MonkeyPatch, *verifications: Verification | None) -> list[str]:
    entries = [
        CatalogueEntry(_logical(f"20261127T020000Z-logical-000{number}", NOW - timedelta(hours=5)), verification)
        for number, verification in enumerate(verifications)
    ]
    entries.append(CatalogueEntry(_base("20261127T010000Z-base-0009", NOW - timedelta(days=3, hours=1), 0, 1, 5), None))
    monkeypatch.setattr(out, "_width", width)
    with out.capture() as captured:
        out.print(_backups_table(entries))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_every_column_is_below_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(80, monkeypatch, judged("proven")) == [
        "backup                         age    size  format  verified",
        "20261127T020000Z-logical-0000  5 h  3.2 GB  custom  yes, in 20 s",
        "20261127T010000Z-base-0009     3 d  2.1 GB  full    no",
    ]
    assert shown(140, monkeypatch, None)[1:] == [
        "20261127T020000Z-logical-0000  5 h ago  3.2 GB  custom  tmi            17.1        2 min  no",
        "20261127T010000Z-base-0009     3 d ago  2.1 GB  full    whole cluster  17.1        2 min  no",
    ]


def test_a_reason_is_told_as_it_is_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(140, monkeypatch, judged("failed", "rows differ: [/red] in [b]t"), judged("failed"))
    assert lines[1].endswith("FAILED: rows differ: [/red] in [b]t")
    assert lines[2].endswith("FAILED: no reason is recorded")


def test_what_is_too_long_for_a_narrow_terminal_is_cut_and_a_wide_one_shows_it_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = "a row differs " * 10
    cut = shown(80, monkeypatch, judged("failed", reason))
    assert (len(cut), cut[1][-1]) == (3, "…")
    whole = "".join(line[90:] for line in shown(120, monkeypatch, judged("failed", reason))[1:-1])
    assert whole.replace(" ", "").endswith(reason.replace(" ", ""))


def test_columns_are_as_wide_as_a_terminal_shows_them() -> None:
    assert in_columns([("a", "n"), ("日本", "1"), ("b\x1b", "12")], right={1}) == [
        "a       n",
        "日本    1",
        "b\\x1b  12",
    ]


def test_a_reason_keeps_to_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(200, monkeypatch, judged("failed", "a row\n20261127T020000Z-logical-9999  verified\x1b[2J"))
    assert len(lines) == 3
    assert lines[1].endswith("FAILED: a row 20261127T020000Z-logical-9999  verified\\x1b[2J")
