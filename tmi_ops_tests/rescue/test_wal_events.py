"""What records of WAL tell of a table, as pg_waldump 15 and 17 write them."""

from __future__ import annotations

from tmi_ops.backup.snapshot import TableName
from tmi_ops.rescue.relations import Relation, Relations
from tmi_ops.rescue.table_events import (
    History,
    drops,
    events_backwards,
    events_forwards,
    partitions_gone,
    together,
    with_partitions_gone,
)
from tmi_ops.rescue.wal_events import Commit, Commits, File, parse_record

TABLE = 16384
FIRST, SECOND = File(5, 16384), File(5, 16391)
HEAD = "rmgr: {rmgr} len (rec/tot): 54/ 54, tx: {tx}, lsn: 0/{lsn:08X}, prev 0/0, desc: {desc}"
IN_FIRST = "blkref #0: rel 1663/5/16384 blk 0"


def commits(*records: tuple[str, int, str]) -> list[Commit]:
    lines = [HEAD.format(rmgr=rmgr, tx=tx, lsn=16 * (n + 1), desc=desc) for n, (rmgr, tx, desc) in enumerate(records)]
    parsed = [parse_record(line) for line in lines]
    return list(Commits().read(record for record in parsed if record is not None))


def committed(tx: int, more: str = "") -> tuple[str, int, str]:
    return ("Transaction", tx, f"COMMIT 2026-11-25 19:48:38.954666 UTC{more}")


def test_rows_of_subtransactions_count_and_those_of_aborted_ones_do_not() -> None:
    found = commits(
        ("Heap", 7, f"DELETE off 1 flags 0x00 KEYS_UPDATED , {IN_FIRST}"),
        ("Heap", 8, f"DELETE xmax: 8, off: 2, infobits: [KEYS_UPDATED], flags: 0x00, {IN_FIRST}"),
        ("Heap", 7, f"HOT_UPDATE old_xmax: 7, old_off: 4, old_infobits: [], flags: 0x20, new_off: 11, {IN_FIRST}"),
        ("Heap", 9, f"DELETE off 3 flags 0x00 KEYS_UPDATED , {IN_FIRST}"),
        ("Transaction", 9, "ABORT 2026-11-25 19:48:38.954666 UTC"),
        committed(7, "; subxacts: 8"),
        committed(10),
    )
    events = events_backwards(found, TABLE, FIRST).events
    assert [(event.kind, event.rows, event.commit.xid) for event in events] == [
        ("deleted rows", 2, 7),
        ("changed rows", 1, 7),
    ]
    assert events[0].commit.lsn == 16 * 6


def test_a_truncation_is_followed_to_the_file_before_it_and_a_drop_ends_the_search() -> None:
    found = commits(
        ("Heap", 7, f"DELETE off 1 flags 0x00 KEYS_UPDATED , {IN_FIRST}"),
        committed(7),
        ("Storage", 8, "CREATE base/5/16391"),
        ("Storage", 8, "CREATE base/5/16392"),
        committed(8, "; rels: base/5/16388 base/5/16384; inval msgs: catcache 55 relcache 16384 relcache 16387"),
        ("Heap", 9, "DELETE off 1 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16391 blk 0"),
        committed(9),
    )
    kinds = ["deleted rows", "emptied or rewritten", "deleted rows"]
    assert [event.kind for event in events_backwards(found, TABLE, SECOND).events] == kinds
    assert [event.kind for event in events_forwards(found, TABLE, FIRST).events] == kinds
    dropped = commits(
        committed(10, "; rels: base/5/16391; dropped stats: 2/5/16384; inval msgs: relcache 16384"), committed(11)
    )
    events = events_forwards([*found, *dropped], TABLE, FIRST).events
    assert [event.kind for event in events] == [*kinds, "dropped"]
    assert events[-1].commit.xid == 10


def test_what_happens_to_other_tables_is_passed_over() -> None:
    found = commits(
        ("Heap", 7, "DELETE off 1 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/6/16384 blk 0"),
        ("Storage", 7, "CREATE base/5/20000"),
        committed(7, "; rels: base/5/19000; inval msgs: relcache 19000"),
    )
    assert events_backwards(found, TABLE, FIRST) == History((), file=FIRST)
    assert events_forwards(found, TABLE, FIRST) == History(())
    assert parse_record("pg_waldump: first record is after 0/1") is None


def test_a_commit_that_removed_more_files_than_it_put_in_their_place_may_have_dropped_a_table() -> None:
    found = commits(
        ("Storage", 7, "CREATE base/5/20000"),
        committed(7, "; rels: base/5/19000; inval msgs: relcache 19000"),
        committed(8, "; rels: base/5/20000"),
        committed(9, "; rels: base/6/21000"),
    )
    assert [commit.xid for commit in drops(found, 5)] == [8]


WHOLE, INHERITANCE = 16380, File(5, 2611)
FROM_INHERITANCE = "DELETE off 1 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/2611 blk 0"


def test_a_partitioned_table_has_one_history_of_all_its_partitions() -> None:
    found = commits(
        ("Heap", 7, f"DELETE off 1 flags 0x00 KEYS_UPDATED , {IN_FIRST}"),
        ("Heap", 7, "DELETE off 1 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16391 blk 0"),
        committed(7),
        ("Heap", 8, FROM_INHERITANCE),
        committed(8, f"; rels: base/5/16391; dropped stats: 2/5/16391; inval msgs: relcache 16391 relcache {WHOLE}"),
        ("Heap", 9, FROM_INHERITANCE),
        committed(9, f"; inval msgs: relcache {WHOLE} relcache 16384"),
        ("Heap", 10, FROM_INHERITANCE),
        committed(10, "; inval msgs: relcache 99"),
    )
    history = together({"a": events_backwards(found, TABLE, FIRST), "b": events_forwards(found, SECOND.number, SECOND)})
    assert [(event.kind, event.rows, event.partitions) for event in history.events] == [
        ("deleted rows", 2, ("a", "b")),
        ("dropped", 0, ("b",)),
    ]
    gone = list(partitions_gone(found, {WHOLE}, INHERITANCE))
    assert [event.commit.xid for event in gone] == [8, 9], "another table's partitions are no matter"
    assert [(event.kind, event.commit.xid) for event in with_partitions_gone(history, gone).events] == [
        ("deleted rows", 7),
        ("dropped", 8),
        ("partition dropped or detached", 9),
    ]


def test_a_table_is_found_by_the_name_that_a_person_means_and_has_its_partitions() -> None:
    def relation(oid: int, schema: str, name: str, whole: int | None = None, *, visible: bool = True) -> Relation:
        return Relation(oid, TableName(schema, name), File(5, oid), whole, visible=visible)

    relations = Relations(
        {
            one.oid: one
            for one in (
                relation(1, "public", "days"),
                relation(2, "archive", "days", visible=False),
                relation(3, "archive", "only", visible=False),
                relation(4, "one", "twice", visible=False),
                relation(5, "two", "twice", visible=False),
                relation(6, "public", "day1", whole=1),
                relation(7, "public", "hour1", whole=6),
            )
        }
    )

    def found(words: str) -> int | None:
        relation = relations.find(words)
        return relation and relation.oid

    names = ("days", "archive.days", "only", "twice", "two.twice", "nothing")
    assert [found(words) for words in names] == [1, 2, 3, None, 5, None]
    assert [one.oid for one in relations.family(relations.by_oid[1])] == [1, 6, 7]
