"""Rows and columns lost by mistake come back while the application writes on; what it wrote itself is not touched."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tmi_ops.cache.connection import connected
from tmi_ops.postgres.connections import connect
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.columns.planning import ColumnsPlan
from tmi_ops.rescue.past import Moment, past_database
from tmi_ops.rescue.planning import RescuePlan
from tmi_ops.rescue.selection import Selection, TableColumn, TableRows
from tmi_ops.rescue.session import both_sides
from tmi_ops.runbooks.execution import RunbookError
from tmi_ops.runbooks.rows.actions import Opened, Signed
from tmi_ops.runbooks.rows.planning import runbook_of
from tmi_ops_tests.application import Application
from tmi_ops_tests.runbooks.crashes import Crash, crash_at
from tmi_ops_tests.runbooks.disasters import APP_ROLE, REPORT, Run, Tmi, at_work

pytestmark = pytest.mark.slow


def do(tmi: Tmi, *statements: str) -> None:
    with connect(tmi.settings.postgres) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def restore_point(tmi: Tmi, name: str) -> Moment:
    tmi.value(f"SELECT pg_create_restore_point('{name}')")
    return Moment(Target(name=name))


def planned(tmi: Tmi, moment: Moment, selection: Selection) -> tuple[RescuePlan | ColumnsPlan, Run]:
    """What a person sees and agrees to, and the run that begins with it."""
    tmi.archive()
    with (
        past_database(tmi.settings, tmi.store, moment, REPORT) as past,
        both_sides(past.address, tmi.settings.postgres) as sides,
    ):
        rescue = Opened.of(sides, selection, past.text, REPORT).plan
    return rescue, Run.of(tmi.settings, tmi.store, runbook_of(tmi.settings, moment, rescue))


def written_by(application: Application) -> list[str]:
    """Threat models that an application wrote and will not write again: its process is another one from here on."""
    application.wait_for_writes(30)
    application.kill()
    models = [row.id for write in application.acknowledged() for row in write.rows if row.table == "threat_models"]
    application.launch()
    return list(dict.fromkeys(models))


def listed(models: list[str]) -> str:
    return ", ".join(f"'{model}'" for model in models)


def test_crashed_everywhere_the_chosen_rows_are_back_and_the_application_missed_nothing(
    tmi: Tmi, tmp_path: Path
) -> None:
    with at_work(tmi, tmp_path / "app") as application:
        alice, bob = application.sign_in(), application.sign_in()
        application.revoke(alice)
        spoiled, deleted, unchosen, *_ = old = written_by(application)
        moment = restore_point(tmi, "before the mistake")
        do(
            tmi,
            f"UPDATE threat_models SET name = 'oops', version = 0 WHERE id = '{spoiled}'",
            *(
                f"DELETE FROM {table} WHERE threat_model_id IN ({listed([deleted, unchosen])})"
                for table in ("audit_entries", "threats")
            ),
            f"DELETE FROM threat_models WHERE id IN ({listed([deleted, unchosen])})",
        )
        # The application has the mistake in its cache by now, and goes on with other work.
        with connected(tmi.settings.redis) as cache:
            cache.delete(f"cache:threat_model:{spoiled}")
        assert application.version_shown(spoiled) == 0
        lost = {row.id for row in application.missing(tmi.settings.postgres, before=datetime.now(UTC))}
        assert {spoiled, deleted, unchosen} <= lost

        chosen = Selection((TableRows("threat_models", f"id IN ({listed([spoiled, deleted])})"),), policy="take-past")
        rescue, run = planned(tmi, moment, chosen)
        assert isinstance(rescue, RescuePlan)
        assert {one.table: (one.insert > 0, one.update) for one in rescue.tables if one.written} == {
            "public.threat_models": (True, 1),
            "public.threats": (True, 0),
            "public.audit_entries": (True, 0),
        }
        agreed_to_another = run.plan.model_copy(update={"requests": {**run.plan.requests, "digest": "of other rows"}})
        with pytest.raises(RunbookError, match="has changed since the plan was confirmed"):
            Run.of(tmi.settings, tmi.store, agreed_to_another).go()
        assert application.version_shown(spoiled) == 0
        with pytest.raises(Crash):
            run.go(fault=crash_at("rows", "action done"))
        # What the application makes of a row that came back is its own; the runbook that goes on leaves it alone.
        do(tmi, f"UPDATE threat_models SET version = version + 100 WHERE id = '{deleted}'")
        newer = tmi.value(f"SELECT version FROM threat_models WHERE id = '{deleted}'")
        assert run.crash_everywhere() == 6
        done = run.go()
        application.wait_for_writes(10)

        assert done.state == "done"
        assert tmi.value(f"SELECT version FROM threat_models WHERE id = '{deleted}'") == newer
        assert tmi.value("SELECT count(*) FROM threat_models WHERE name = 'oops'") == 0
        missing = application.missing(tmi.settings.postgres, before=datetime.now(UTC))
        of_unchosen = {
            row.id for write in application.acknowledged() if write.rows[0].id == unchosen for row in write.rows
        }
        assert {row.id for row in missing} == of_unchosen
        assert application.stale_reads(tmi.settings.postgres) == []
        assert not application.accepts(alice), "a revoked token was revived"
        assert application.refreshes(bob), "time did not jump, so nobody has to sign in again"
    (found,) = done.answers
    assert found.outcome == "passed"
    assert f"public.threats: {written(rescue, 'public.threats')} inserted, 0 updated" in found.findings
    assert len(old) > 3


def test_a_dropped_column_is_back_with_its_values_while_the_application_writes_on(tmi: Tmi, tmp_path: Path) -> None:
    with at_work(tmi, tmp_path / "app") as application:
        do(
            tmi,
            "UPDATE threats SET severity = CASE WHEN id < '8' THEN 'High' ELSE 'Low' END",
            "COMMENT ON COLUMN threats.severity IS 'how bad it is'",
            f"GRANT SELECT (severity) ON threats TO {APP_ROLE}",
        )
        moment = restore_point(tmi, "before the drop")
        before = tmi.value(_SEVERITY)
        do(tmi, "ALTER TABLE threats DROP COLUMN severity")
        application.wait_for_writes(10)
        rescue, run = planned(tmi, moment, Selection(columns=(TableColumn("threats", "severity"),)))
        assert isinstance(rescue, ColumnsPlan)
        assert rescue.others >= 10
        with pytest.raises(Crash):
            run.go(fault=crash_at("column", "action done"))
        do(tmi, "UPDATE threats SET severity = 'Critical' WHERE id = (SELECT min(id) FROM threats WHERE severity > '')")
        # The journal alone says that it was done; the column as it is by now would be taken for somebody else's.
        assert run.logbook.read().known(Signed) is not None
        done = run.go()
        application.wait_for_writes(10)

        assert done.state == "done"
        assert tmi.value("SELECT count(*) FROM threats WHERE severity = 'Critical'") == 1
        do(tmi, "UPDATE threats SET severity = 'High' WHERE severity = 'Critical'")
        assert tmi.value(_SEVERITY) == before
        assert application.missing(tmi.settings.postgres, before=datetime.now(UTC)) == []
        assert application.stale_reads(tmi.settings.postgres) == []
    (found,) = done.answers
    assert "no other column of any row changed" in found.detail
    assert "restored the index public.idx_threats_severity" in found.findings


# Its definition: comment, grants, index, and what its values are.
_SEVERITY = """
SELECT concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attacl, col_description(attrelid, attnum),
                 pg_get_indexdef('idx_threats_severity'::regclass),
                 (SELECT md5(string_agg(id || severity, '' ORDER BY id)) FROM threats WHERE severity IS NOT NULL))
FROM pg_attribute WHERE attrelid = 'threats'::regclass AND attname = 'severity'"""


def written(rescue: RescuePlan, table: str) -> int:
    return next(one.insert for one in rescue.tables if one.table == table)
