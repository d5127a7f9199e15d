"""The vocabulary that every check speaks."""

from __future__ import annotations

import pytest

from tmi_ops.checks.finding import (
    Answer,
    Finding,
    Outcome,
    Severity,
    advise,
    critical,
    fine,
    not_applicable,
    unknown,
    warning,
    worst,
    worst_first,
    worst_outcome,
)

NOTICE, WARNING, CRITICAL = (Finding(severity, "role", "what") for severity in Severity)


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ((), Outcome.OK),
        ((NOTICE,), Outcome.OK),
        ((NOTICE, WARNING), Outcome.WARNING),
        ((WARNING, CRITICAL, NOTICE), Outcome.CRITICAL),
    ],
)
def test_an_answer_is_as_bad_as_its_worst_finding(findings: tuple[Finding, ...], outcome: Outcome) -> None:
    assert Answer("seen", findings).outcome is outcome


def test_each_word_for_an_answer_ends_as_it_says_and_keeps_cause_and_advice() -> None:
    assert [one.outcome for one in (fine("a"), not_applicable("a"), unknown("a"))] == [
        Outcome.OK,
        Outcome.NOT_APPLICABLE,
        Outcome.UNKNOWN,
    ]
    bad = critical("it is shut", "somebody shut it", "open it:", "ALTER DATABASE tmi ALLOW_CONNECTIONS true;")
    assert (bad.outcome, bad.cause) == (Outcome.CRITICAL, "somebody shut it")
    assert warning("a", "b").outcome is Outcome.WARNING
    assert unknown("may not look", "GRANT pg_monitor TO m;").advice.sql == ("GRANT pg_monitor TO m;",)


def test_advice_keeps_its_order_and_knows_what_each_line_is() -> None:
    advice = advise(
        "set POSTGRES_DB to the right name, or create it:",
        "CREATE DATABASE tmi;",
        "tmi-ops migrate  # creates its tables",
        "",
        "restart the server",
        "\\password tmi_app  -- in psql",
        "TMI_OPS_HEALTH_TIMEOUT=60s",
    )
    assert advice.steps[1:3] == ("CREATE DATABASE tmi;", "tmi-ops migrate  # creates its tables")
    assert advice.text == "set POSTGRES_DB to the right name, or create it:\nrestart the server"
    assert advice.sql == ("CREATE DATABASE tmi;", "\\password tmi_app  -- in psql")
    assert advice.command == ("tmi-ops migrate  # creates its tables", "TMI_OPS_HEALTH_TIMEOUT=60s")
    assert not advise("", "")


def test_the_worst_comes_first_and_of_nothing_all_is_well() -> None:
    assert worst_first((NOTICE, CRITICAL, WARNING)) == (CRITICAL, WARNING, NOTICE)
    assert (worst(()), worst((NOTICE, WARNING))) == (None, Severity.WARNING)
    assert worst_outcome(()) is Outcome.OK
    assert worst_outcome((Outcome.NOT_APPLICABLE, Outcome.UNKNOWN, Outcome.OK)) is Outcome.UNKNOWN
    assert worst_outcome((Outcome.UNKNOWN, Outcome.WARNING)) is Outcome.WARNING
