"""A shadow's report in a real store: signed by the prover, and never overwritten by another shadow's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyrage
import pytest

from tmi_ops.errors import ObjectExistsError, OpsError, SettingsError
from tmi_ops.settings import StoreSettings
from tmi_ops.shadow.report import (
    ReportWriter,
    RollingCheck,
    ShadowReport,
    Trouble,
    read_reports,
    report_key,
    require_right_to_report,
)
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.small_objects import get_single
from tmi_ops.store.trust import Trust, TrustedKey

WRITER, PROVER = new_secret_key(), new_secret_key()
PINNED = (TrustedKey(WRITER.public, ("writer",)), TrustedKey(PROVER.public, ("prover",)))
ENVIRONMENT = "development"


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return replace(open_store(store_settings, ENVIRONMENT), trust=Trust(ENVIRONMENT, PROVER, PINNED))


def report(name: str = "one", **changes: object) -> ShadowReport:
    now = datetime.now(UTC)
    given = {
        "name": name,
        "host": "here",
        "environment": ENVIRONMENT,
        "began_at": now,
        "written_at": now,
        "every_s": 15.0,
        "state": "level",
        "verified_to": now,
        **changes,
    }
    return ShadowReport.model_validate(given)


def test_a_report_is_read_as_it_was_written_and_replaced_by_the_next(store: ObjectStore) -> None:
    writer = ReportWriter(store, "one")
    writer.write(report())
    later = report(replayed_lsn="0/5000000")
    writer.write(later)
    ReportWriter(store, "two").write(report("two"))
    found = read_reports(store)
    assert {known.report.name for known in found} == {"one", "two"}
    assert later in [known.report for known in found]
    assert not any(known.is_stale for known in found)
    ReportWriter(store, "one").write(report())
    with pytest.raises(ObjectExistsError):
        writer.write(later)


def test_what_the_prover_did_not_sign_for_that_name_and_time_is_refused(store: ObjectStore) -> None:
    ReportWriter(store, "one").write(report())
    body, head = get_single(store, report_key("one"))
    store.put(report_key("two"), body, head.metadata)
    store.put(report_key("three"), report("three").model_dump_json().encode())
    store.put(report_key("four"), body.replace(b'"level"', b'"ended"'), head.metadata)
    by_writer = replace(store, trust=Trust(ENVIRONMENT, WRITER, ()))
    ReportWriter(by_writer, "five").write(report("five"))
    refused: list[OpsError] = []
    assert [known.report.name for known in read_reports(store, refused.append)] == ["one"]
    assert len(refused) == 4
    with pytest.raises(SettingsError, match="may not sign verifications"):
        require_right_to_report(replace(store, trust=Trust(ENVIRONMENT, WRITER, PINNED)))
    require_right_to_report(store)
    old = report("six", written_at=datetime.now(UTC) - timedelta(minutes=10))
    ReportWriter(store, "six").write(old)
    (again,) = [known for known in read_reports(store) if known.report.name == "six"]
    assert again.is_stale, "an old one that was put there again"


def test_in_an_encrypted_store_it_says_nothing_of_the_content(store: ObjectStore) -> None:
    encrypted = replace(store, recipients=(str(pyrage.x25519.Identity.generate().to_public()),))
    check = RollingCheck(
        name="schema", outcome="failed", detail="salaries is missing.", findings=("salaries",), at=datetime.now(UTC)
    )
    trouble = Trouble(
        kind="record that cannot be replayed",
        what="The server ended at salaries.",
        lsn="0/5000000",
        since=datetime.now(UTC),
    )
    ReportWriter(encrypted, "one").write(report(checks=(check,), troubles=(trouble,)))
    body, _ = get_single(store, report_key("one"))
    assert b"salaries" not in body
    (known,) = read_reports(encrypted)
    assert known.report.checks[0].outcome == "failed"
    assert known.report.troubles[0].lsn == "0/5000000"
