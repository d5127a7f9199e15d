"""How close the transaction and multixact counters are to the age at which the server refuses writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from tmi_ops.checks.finding import Answer, Outcome
from tmi_ops.health.answer import Reading, Row, answer
from tmi_ops.health.formatting import format_list
from tmi_ops.health.probe import READ_ALL_STATS, Area, Probe
from tmi_ops.health.thresholds import Thresholds

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

# The server refuses new transactions three million before its 31-bit horizon.
# Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
LAST_AGE = 2**31 - 3_000_000
_SHOWN = 10

_TRANSACTION_AGES = """
SELECT datname::text AS name, datname = current_database() AS is_ours, datallowconn AS may_connect,
       age(datfrozenxid) AS age
FROM pg_database ORDER BY age DESC, is_ours DESC
"""
_MULTIXACT_AGES = """
SELECT datname::text AS name, datname = current_database() AS is_ours, datallowconn AS may_connect,
       mxid_age(datminmxid) AS age
FROM pg_database ORDER BY age DESC, is_ours DESC
"""
_TRANSACTION_TABLES = """
SELECT c.oid::regclass::text AS name, greatest(age(c.relfrozenxid), age(nullif(toast.relfrozenxid, '0'))) AS age
FROM pg_class c LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
WHERE c.relkind IN ('r', 'm') AND c.relfrozenxid <> '0'
ORDER BY age DESC LIMIT %s
"""
_MULTIXACT_TABLES = """
SELECT c.oid::regclass::text AS name, greatest(mxid_age(c.relminmxid), mxid_age(nullif(toast.relminmxid, '0'))) AS age
FROM pg_class c LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
WHERE c.relkind IN ('r', 'm') AND c.relminmxid <> '0'
ORDER BY age DESC LIMIT %s
"""
# Rows that a snapshot can still see cannot be frozen.
_HOLDERS = """
SELECT format('pid %s (%s)', pid, concat_ws(', ', usename, coalesce(state, backend_type))) AS name,
       age(backend_xmin) AS age
FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL SELECT 'slot ' || slot_name, greatest(age(xmin), age(catalog_xmin))
FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
UNION ALL SELECT 'prepared transaction ' || gid, age(transaction) FROM pg_prepared_xacts
ORDER BY age DESC LIMIT 3
"""


@dataclass(frozen=True)
class DatabaseAge:
    """The age of the database's oldest unfrozen row, in transactions or multixacts."""

    name: str
    is_ours: bool
    may_connect: bool
    age: int


@dataclass(frozen=True)
class Aged:
    """A table, or a holder that keeps rows from being frozen, with its age."""

    name: str
    age: int


@dataclass(frozen=True)
class Wraparound(Reading):
    """The oldest first. `what`: transaction or multixact; `freeze_at`: the age at which autovacuum is forced."""

    what: str
    databases: tuple[DatabaseAge, ...]
    tables: tuple[Aged, ...]
    holders: tuple[Aged, ...]
    freeze_at: int

    @property
    def percent(self) -> float:
        return 100 * self.databases[0].age / LAST_AGE

    def numbers(self) -> Mapping[str, float]:
        return {f"{self.what} age (%)": self.percent}

    def rows(self) -> Sequence[Row]:
        return [
            *({"what": "database", "name": one.name, "age": one.age} for one in self.databases),
            *({"what": "table", "name": one.name, "age": one.age} for one in self.tables),
            *({"what": "held by", "name": one.name, "age": one.age} for one in self.holders),
        ]


def _read(session: ProbeSession, what: str, databases: LiteralString, tables: LiteralString) -> Wraparound:
    setting = "autovacuum_freeze_max_age" if what == "transaction" else "autovacuum_multixact_freeze_max_age"
    limit = session.row("SELECT current_setting(%s)::int AS freeze_at", (setting,))
    return Wraparound(
        what,
        session.read(DatabaseAge, databases),
        session.read(Aged, tables, (_SHOWN,)),
        session.read(Aged, _HOLDERS) if what == "transaction" else (),
        limit["freeze_at"],
    )


def _read_transactions(session: ProbeSession) -> Wraparound:
    return _read(session, "transaction", _TRANSACTION_AGES, _TRANSACTION_TABLES)


def _read_multixacts(session: ProbeSession) -> Wraparound:
    return _read(session, "multixact", _MULTIXACT_AGES, _MULTIXACT_TABLES)


def judge(reading: Wraparound, thresholds: Thresholds) -> Answer:
    oldest = reading.databases[0]
    summary = (
        f"{reading.percent:.1f} % of the way to refusing writes: the oldest row of database {oldest.name} is "
        f"{oldest.age:,} {reading.what}s old"
    )
    status = thresholds.status(reading.percent)
    if status is Outcome.OK:
        return answer(status, summary)
    held = [f"{one.name}, {one.age:,} transactions old" for one in reading.holders if one.age >= reading.freeze_at]
    why = f"end what blocks freezing ({format_list(held)}), then freeze" if held else "freeze the oldest tables now"
    if oldest.is_ours and reading.tables:
        remedy = tuple(_cure_of(table) for table in reading.tables[:5])
    elif not oldest.may_connect:
        return answer(
            status,
            summary,
            f"find in the server's log why autovacuum fails: only it can freeze {oldest.name}, and it is forced "
            "even where it is off",
            ("ALTER SYSTEM SET autovacuum = on;", "SELECT pg_reload_conf();"),
        )
    else:
        remedy = (f"vacuumdb --freeze --dbname {oldest.name}",)
    return answer(status, summary, f"{why}; autovacuum was due at an age of {reading.freeze_at:,}", remedy)


def _cure_of(table: Aged) -> str:
    """Only its own session can vacuum a temporary table; autovacuum cannot either."""
    if table.name.startswith("pg_temp_"):
        return f"-- {table.name} is a temporary table: end the session that created it (pg_stat_activity)"
    return f"VACUUM (FREEZE, VERBOSE) {table.name};"


TRANSACTION_WRAPAROUND = Probe(
    "transaction_wraparound",
    Area.VACUUM,
    "Age of the oldest transaction that is not frozen",
    "share of the age at which the server refuses writes",
    Thresholds(25, 50, "%"),
    _read_transactions,
    judge,
    needs=(READ_ALL_STATS,),
)
MULTIXACT_WRAPAROUND = Probe(
    "multixact_wraparound",
    Area.VACUUM,
    "Age of the oldest multixact that is not frozen",
    "share of the age at which the server refuses writes",
    # autovacuum_multixact_freeze_max_age is twice autovacuum_freeze_max_age.
    Thresholds(35, 60, "%"),
    _read_multixacts,
    judge,
)
