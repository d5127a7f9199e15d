"""Who follows a page notices where it does not say what happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops_tests.following import Reader, commands_of

SHOWN = '```sh\ncd /the/place\nexport A=1 B=2\nunset B\necho "$A in $(pwd)"\n```\nIt prints:\n```\n1 in ...\n```\n'


def reader(place: Path) -> Reader:
    return Reader(place, {"PATH": "/usr/bin:/bin"}, {"/the/place": str(place)}, {"systemctl": print}, print, print)


def test_a_page_is_followed_with_what_is_here_in_place_of_what_is_printed(tmp_path: Path) -> None:
    one = reader(tmp_path)
    one.follow(SHOWN + "Into `.env.production`:\n```ini\nPLACE=/the/place\n```\n```sh\nsystemctl enable x\n```\n")
    assert one.shown == [f"1 in {tmp_path}\n"]
    assert (tmp_path / ".env.production").read_text() == f"PLACE={tmp_path}\n"


@pytest.mark.parametrize(
    "page",
    [
        SHOWN.replace("1 in", "2 in"),
        "```sh\nfalse\n```\n",
        "```sh\ntrue   # exit code 1\n```\n",
        "```yaml\na: 1\n```\n",
        "```sh\nunset NOT_SET\n```\n",
    ],
    ids=["other output", "other exit code", "no error", "unknown block", "a variable that is not there"],
)
def test_a_page_that_does_not_say_what_happens_is_found(page: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, KeyError)):
        reader(tmp_path).follow(page)


def test_commands_of_a_page_are_its_shell_lines_and_a_loop_is_one() -> None:
    page = "```sh\na\n\nb # c\nfor x in 1 2; do\n  d\ndone\ne\n```\n```sql\nf\n```\n"
    assert commands_of(page) == ["a", "b # c", "for x in 1 2; do\n  d\ndone", "e"]
