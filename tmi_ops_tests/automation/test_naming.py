"""Whose a schedule or sensor is, by its name."""

from __future__ import annotations

import pytest

from tmi_ops.automation.naming import is_called_for, name_among_others, plain_name
from tmi_ops.automation.reading import is_of


def test_a_name_among_others_says_whose_it_is_and_what() -> None:
    called = name_among_others("production/billing", "logical_backup")
    assert called == "production__billing__logical_backup"
    assert plain_name(called) == plain_name("logical_backup") == "logical_backup"


@pytest.mark.parametrize(
    ("called", "name", "ours"),
    [
        ("production__rpo_guard", "production", True),
        ("production__billing__failed_run", "production/billing", True),
        ("production__billing__failed_run", "production", False),
        ("shop__rpo_guard", "production", False),
        ("rpo_guard", "production", None),
    ],
)
def test_it_is_ours_if_it_is_called_so(called: str, name: str, ours: bool | None) -> None:
    assert is_called_for(called, name) is ours
    location = {"repository_location_origin": {"location_name": "tmi_ops"}}
    body = {"origin": {"instigator_name": called, "external_repository_origin": location}}
    assert is_of(body, name) is (ours is not False)
