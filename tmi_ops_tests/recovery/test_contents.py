from __future__ import annotations

import pytest

from tmi_ops.backup.archive.contents import Contents, LargeObjectsContent, SequenceContent, TableContent
from tmi_ops.backup.contents import contents_json, fingerprints_of, parse_contents, sequence_values, written_name
from tmi_ops.errors import RecoveryError
from tmi_ops.recovery.contents import Row, RowsDifference, differing_large_objects, differing_sequences, pair, told

THREATS = TableContent("public", "threats", ("id", "name", "note"), 3, 60, "aa")
OTHER = TableContent("a.b", "c", ("id",), 1, 2, "bb")
ODD = TableContent("a", "b.c", ("id",), 1, 2, "cc")
TICKET = SequenceContent("public", "ticket", 104, called=True)


def test_equal_digests_and_columns_leave_nothing_to_look_at() -> None:
    assert pair(Contents((THREATS, OTHER)), Contents((OTHER, THREATS))) == pair(Contents(), Contents())


@pytest.mark.parametrize(
    "came",
    [
        TableContent("public", "threats", ("id", "name", "note"), 3, 60, "ab"),
        TableContent("public", "threats", ("name", "id", "note"), 3, 60, "aa"),
    ],
    ids=["digest", "column order"],
)
def test_another_digest_or_order_of_columns_makes_a_suspect(came: TableContent) -> None:
    found = pair(Contents((THREATS,)), Contents((came,)))
    assert found.suspects == ((THREATS, came),)
    assert found.differences == ()


def test_tables_of_one_side_are_differences_and_dots_in_names_confuse_nobody() -> None:
    found = pair(Contents((THREATS, OTHER)), Contents((THREATS, ODD)))
    assert found.differences == (
        'a."b.c" is in the restored copy but was not in the source',
        '"a.b".c is missing from the restored copy',
    )
    assert len(fingerprints_of(Contents((OTHER, ODD)))) == 2


@pytest.mark.parametrize(
    ("came", "said"),
    [
        (SequenceContent("public", "ticket", 105, called=True), "is at 105, in the source it was at 104"),
        (SequenceContent("public", "ticket", 104, called=False), "is at 104, not called yet"),
        (None, "missing"),
    ],
)
def test_a_sequence_stands_where_it_stood_to_the_number_and_the_call(came: SequenceContent | None, said: str) -> None:
    (sentence,) = differing_sequences((TICKET,), () if came is None else (came,))
    assert said in sentence
    assert differing_sequences((TICKET,), (TICKET,)) == []


def test_large_objects_are_compared_by_number_size_and_content() -> None:
    was = Contents(large_objects=LargeObjectsContent(2, 10, "aa"))
    assert differing_large_objects(was, was) == []
    assert "same size" in differing_large_objects(was, Contents(large_objects=LargeObjectsContent(2, 10, "ab")))[0]
    assert "has 1 of 9 bytes" in differing_large_objects(was, Contents(large_objects=LargeObjectsContent(1, 9, "a")))[0]


def test_rows_that_differ_are_named_by_their_key_and_columns() -> None:
    found = RowsDifference(
        (Row(1, b"1\tone\tsame"), Row(2, b"2\ttwo\t\x1b[31m")), (Row(1, b"1\tuno\tsame"), Row(9, b"\x1b\tx\ty"))
    )
    sentence = told(THREATS, THREATS, found, ("id",))
    assert "same number of rows (3), but other content" in sentence
    assert "the row with id = 1 has another name" in sentence
    assert "the row with id = 2 is missing" in sentence
    assert "the row with id = ? was not in the source" in sentence
    assert "\x1b" not in sentence


def test_without_a_key_rows_are_named_by_their_place_and_nothing_of_their_content_is_said() -> None:
    found = RowsDifference((Row(7, b"secret\tx\ty"),), (), complete=False)
    sentence = told(THREATS, TableContent("public", "threats", THREATS.columns, 2, 40, "zz"), found, ())
    assert "had 3 rows, the restored copy has 2: row 7 of the dump is not in the copy and more" in sentence
    assert "secret" not in sentence


def test_contents_come_back_from_the_store_as_they_went() -> None:
    contents = Contents((THREATS, ODD), (TICKET,), LargeObjectsContent(1, 2, "ff"))
    assert parse_contents(contents_json(contents)) == contents
    assert sequence_values(contents)["public.ticket"].after == 104
    with pytest.raises(RecoveryError, match=r"tables.*rows"):
        parse_contents(
            contents_json(contents).replace(b'"rows":3', b'"rows":"x"').replace(b'"rows": 3', b'"rows": "x"')
        )


def test_names_without_dots_and_quotes_are_written_as_they_are() -> None:
    assert written_name("public", "Odd name") == "public.Odd name"
    assert written_name("public", 'a"b') == 'public."a""b"'
