from __future__ import annotations

from datetime import UTC, datetime

from tmi_ops.postgres.prepared import PreparedTransaction, how_to_end

LEFT = PreparedTransaction("it's \x1b left", "app", datetime(2026, 11, 27, 18, 6, 45, tzinfo=UTC))


def test_the_statement_that_ends_it_is_told_quoted_and_without_control_characters() -> None:
    assert LEFT.ending() == "COMMIT PREPARED 'it''s ? left' or ROLLBACK PREPARED 'it''s ? left'"
    assert LEFT.describe() == "the prepared transaction it's ? left of app, since 2026-11-27 18:06:45 UTC"


def test_without_one_the_advice_is_about_sessions() -> None:
    assert how_to_end((), "wait") == "wait"
    assert how_to_end((LEFT,), "wait").startswith("end it in psql (COMMIT PREPARED 'it''s")
    assert how_to_end((LEFT,), "wait").endswith("or wait")
