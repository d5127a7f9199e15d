from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Table, UniqueConstraint
from sqlalchemy.dialects.postgresql.base import PGDialect

from tmi_ops.schema.column_comparison import column_default_sql
from tmi_ops.schema.models import Base
from tmi_ops_tests.schema.facts import FACTS, GUIDE_INDEX_NAMES

TYPE_NAMES = {"TIMESTAMP WITH TIME ZONE": "timestamptz", "NUMERIC(3, 1)": "decimal(3,1)"}

GUIDE_CHECKS = {
    "threat_models": {"threat_model_framework IN ('CIA', 'STRIDE', 'LINDDUN', 'DIE', 'PLOT4ai')"},
    "threat_model_access": {"role IN ('owner', 'writer', 'reader')"},
    "survey_response_access": {"role IN ('owner', 'writer', 'reader')"},
    "threats": {
        "severity IS NULL OR severity IN ('Low', 'Medium', 'High', 'Critical', 'Unknown', 'None')",
        "likelihood IS NULL OR likelihood IN ('low', 'medium', 'high')",
        "risk_level IS NULL OR risk_level IN ('low', 'medium', 'high', 'critical')",
    },
    "diagrams": {"type IN ('DFD-1.0.0')"},
}

GUIDE_INDEXES = {
    "threat_models": {"idx_threat_models_owner_internal_uuid": ["owner_internal_uuid"]},
    "threat_model_access": {"idx_threat_model_access_threat_model_id": ["threat_model_id"]},
    "threats": {
        "idx_threats_threat_model_id": ["threat_model_id"],
        "idx_threats_threat_model_id_created_at": ["threat_model_id", "created_at"],
    },
    "diagrams": {
        "idx_diagrams_threat_model_id": ["threat_model_id"],
        "idx_diagrams_threat_model_id_type": ["threat_model_id", "type"],
    },
    "users": {
        "idx_users_email": ["email"],
        "idx_users_last_login": ["last_login"],
        "idx_users_provider_lookup": ["provider", "provider_user_id"],
    },
}


def test_there_are_exactly_the_52_tables_of_the_facts() -> None:
    assert set(Base.metadata.tables) == set(FACTS)
    assert len(FACTS) == 52


def test_the_facts_themselves_are_whole() -> None:
    assert sum(len(facts["columns"]) for facts in FACTS.values()) == 524
    assert sum(len(facts["indexes"]) for facts in FACTS.values()) == 207
    assert sum(len(facts["foreign_keys"]) for facts in FACTS.values()) == 65


@pytest.mark.parametrize("name", FACTS)
def test_a_model_has_the_columns_types_nullability_and_defaults_of_the_facts_in_their_order(name: str) -> None:
    assert [_column(column) for column in _table(name).columns] == FACTS[name]["columns"]


@pytest.mark.parametrize("name", FACTS)
def test_a_model_has_the_primary_key_of_the_facts(name: str) -> None:
    assert sorted(column.name for column in _table(name).primary_key) == sorted(FACTS[name]["primary_key"])


@pytest.mark.parametrize("name", FACTS)
def test_a_model_has_the_indexes_of_the_facts_under_the_guides_names_and_no_other(name: str) -> None:
    indexes = [
        {
            "name": index.name,
            "unique": bool(index.unique),
            "columns": [column.name for column in index.columns],
        }
        for index in _table(name).indexes
    ]
    expected = [
        {**index, "name": GUIDE_INDEX_NAMES.get(index["name"], index["name"])} for index in FACTS[name]["indexes"]
    ]
    assert sorted(indexes, key=str) == sorted(expected, key=str)
    assert not [one for one in _table(name).constraints if isinstance(one, UniqueConstraint)]


@pytest.mark.parametrize("name", FACTS)
def test_a_model_has_the_foreign_keys_of_the_facts(name: str) -> None:
    keys = [
        {
            "name": key.name,
            "columns": [column.name for column in key.columns],
            "references": key.referred_table.name,
            "referenced_columns": [element.column.name for element in key.elements],
            "on_delete": key.ondelete,
            "on_update": key.onupdate,
        }
        for key in _table(name).foreign_key_constraints
    ]
    assert sorted(keys, key=str) == sorted(FACTS[name]["foreign_keys"], key=str)


@pytest.mark.parametrize("name", FACTS)
def test_a_model_has_the_checks_of_the_guide_and_no_other(name: str) -> None:
    checks = {str(one.sqltext) for one in _table(name).constraints if isinstance(one, CheckConstraint)}
    assert checks == GUIDE_CHECKS.get(name, set())


@pytest.mark.parametrize(("table", "indexes"), GUIDE_INDEXES.items())
def test_every_index_the_guide_names_exists_with_the_columns_its_name_says(
    table: str, indexes: dict[str, list[str]]
) -> None:
    modelled = {index.name: [column.name for column in index.columns] for index in _table(table).indexes}
    assert {name: modelled.get(name) for name in indexes} == indexes


def test_no_columns_default_lies_outside_the_values_its_check_allows() -> None:
    for table in Base.metadata.tables.values():
        for check in (one for one in table.constraints if isinstance(one, CheckConstraint)):
            default = column_default_sql(table.columns[check.info["column"]])
            assert default is None or default.strip("'") in check.info["values"]


def _table(name: str) -> Table:
    return Base.metadata.tables[name]


def _column(column: Any) -> dict[str, Any]:
    kind = column.type.compile(dialect=PGDialect())
    return {
        "name": column.name,
        "type": {"BYTEA": "bytea"}.get(kind) or TYPE_NAMES.get(kind) or kind.lower(),
        "nullable": column.nullable,
        "default": column_default_sql(column),
    }
