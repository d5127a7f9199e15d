"""One threat model of a TMI database, purged by accident, comes back with everything that hung on it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tmi_ops.backup.fingerprint import differing_tables, fingerprint_tables
from tmi_ops.backup.snapshot import exported_snapshot
from tmi_ops.postgres.connections import connect
from tmi_ops.profile.tmi import TMI
from tmi_ops.progress import SilentReport
from tmi_ops.rescue.selection import Selection, root_rows
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.dataset import fill_database
from tmi_ops.store.manifest import TableFingerprint
from tmi_ops_tests.rescue.databases import Two, copied, dropped

pytestmark = pytest.mark.slow

# In the order that TMI's foreign keys, none of which cascades, allow.
PURGE = """
DELETE FROM metadata WHERE entity_id IN (
    SELECT id FROM threats WHERE threat_model_id = '{0}' UNION SELECT id FROM diagrams WHERE threat_model_id = '{0}'
    UNION SELECT id FROM assets WHERE threat_model_id = '{0}' UNION SELECT '{0}');
DELETE FROM alias_counters WHERE parent_id = '{0}';
DELETE FROM version_snapshots WHERE audit_entry_id IN (SELECT id FROM audit_entries WHERE threat_model_id = '{0}');
DELETE FROM audit_entries WHERE threat_model_id = '{0}';
DELETE FROM session_participants WHERE session_id IN (
    SELECT id FROM collaboration_sessions WHERE threat_model_id = '{0}');
DELETE FROM collaboration_sessions WHERE threat_model_id = '{0}';
DELETE FROM timmy_usage WHERE threat_model_id = '{0}';
DELETE FROM timmy_messages WHERE session_id IN (SELECT id FROM timmy_sessions WHERE threat_model_id = '{0}');
DELETE FROM timmy_sessions WHERE threat_model_id = '{0}';
DELETE FROM timmy_embeddings WHERE threat_model_id = '{0}';
DELETE FROM content_feedback WHERE threat_model_id = '{0}';
DELETE FROM threats WHERE threat_model_id = '{0}';
DELETE FROM assets WHERE threat_model_id = '{0}';
DELETE FROM diagrams WHERE threat_model_id = '{0}';
DELETE FROM documents WHERE threat_model_id = '{0}';
DELETE FROM notes WHERE threat_model_id = '{0}';
DELETE FROM repositories WHERE threat_model_id = '{0}';
DELETE FROM threat_model_access WHERE threat_model_id = '{0}';
DELETE FROM threat_models WHERE id = '{0}';
"""
# One that no add-on, webhook or survey refers to, so that all that refers to it can go; and one with much to it.
CHOICE = """
SELECT id FROM threat_models m WHERE NOT EXISTS (SELECT FROM addons WHERE threat_model_id = m.id)
AND NOT EXISTS (SELECT FROM webhook_subscriptions WHERE threat_model_id = m.id)
AND NOT EXISTS (SELECT FROM survey_responses WHERE m.id IN (linked_threat_model_id, created_threat_model_id))
ORDER BY (SELECT count(*) FROM threats WHERE threat_model_id = m.id) DESC, id LIMIT 1
"""


@pytest.fixture(scope="module")
def tmi(server: PostgresSettings) -> Iterator[PostgresSettings]:
    address = server.model_copy(update={"database": f"tmi_past_{secrets.token_hex(4)}"})
    migrate(address, SilentReport())
    fill_database(address, SilentReport(), size=1)
    yield address
    dropped(address)


def fingerprints(address: PostgresSettings) -> dict[str, TableFingerprint]:
    with exported_snapshot(address) as snapshot:
        return fingerprint_tables(snapshot.connection, snapshot.tables, SilentReport())


def test_a_purged_threat_model_comes_back_whole_and_nothing_else_changes(tmi: PostgresSettings) -> None:
    with connect(tmi) as connection:
        row = connection.execute(CHOICE.encode()).fetchone()
    assert row is not None
    with copied(tmi) as now:
        two = Two(tmi, now)
        two.spoil(PURGE.format(row[0]))
        gone = differing_tables(fingerprints(tmi), fingerprints(now))
        assert len(gone) > 10
        two.spoil(
            "INSERT INTO groups (internal_uuid, provider, group_name, first_used, last_used) "
            "VALUES (gen_random_uuid(), 'since', 'since', now(), now())"
        )
        rescued = two.rescue(Selection((root_rows(TMI, "threat-model", str(row[0])),)))
        assert rescued.plan.conflicts == ()
        left = differing_tables(fingerprints(tmi), fingerprints(now))
        assert [sentence.split()[0] for sentence in left] == ["public.groups"]
        assert len(rescued.tables) == len(gone)
