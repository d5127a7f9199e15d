"""Writes the evidence of a run and its page, on this machine and to the store."""

from __future__ import annotations

from tmi_ops.private import write_durably
from tmi_ops.progress import Report
from tmi_ops.runbooks.evidence import RunEvidence, evidence_json, evidence_of
from tmi_ops.runbooks.journal import Journal
from tmi_ops.runbooks.logbook import Logbook
from tmi_ops.runbooks.page import evidence_page

EVIDENCE, PAGE = "evidence.json", "evidence.html"


def record_evidence(journal: Journal, logbook: Logbook, report: Report) -> RunEvidence:
    """Write it on this machine, and to the store if that is reachable. May be repeated."""
    evidence = evidence_of(journal)
    for name, data in ((EVIDENCE, evidence_json(evidence)), (PAGE, evidence_page(evidence).encode())):
        write_durably(logbook.directory / name, data, mode=0o644)
        logbook.copy_to_store(name, data, report)
    return evidence
