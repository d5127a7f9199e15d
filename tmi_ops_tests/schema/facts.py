"""The facts of TMI's schema as its GORM models declare them, and a database as GORM makes it from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("tmi_schema.json").read_text("utf-8"))["tables"]

# Where the guide (Index Strategy) names an index, the models carry the guide's name.
GUIDE_INDEX_NAMES = {
    "idx_tm_owner": "idx_threat_models_owner_internal_uuid",
    "idx_tma_tm": "idx_threat_model_access_threat_model_id",
    "idx_threats_tm": "idx_threats_threat_model_id",
    "idx_threats_tm_created": "idx_threats_threat_model_id_created_at",
    "idx_diagrams_tm": "idx_diagrams_threat_model_id",
    "idx_diagrams_tm_type": "idx_diagrams_threat_model_id_type",
}

# What a TMI database holds beyond the models.
_BEYOND_THE_MODELS = """
    CREATE TABLE "tmi_schema_versions" ("id" bigserial PRIMARY KEY, "version" text NOT NULL, "applied_at" timestamptz);
    CREATE SEQUENCE "threat_model_alias_seq";
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit entries are append-only'; END $$;
    CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE ON "audit_entries"
        FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""


def gorm_statements() -> Iterator[str]:
    """The SQL with which GORM's AutoMigrate and TMI's own start make a database."""
    for table, facts in FACTS.items():
        columns = [_gorm_column(table, column) for column in facts["columns"]]
        key = ", ".join(f'"{name}"' for name in facts["primary_key"])
        # GORM turns a field tagged `unique` into a constraint of this name instead of an index.
        unique = ['CONSTRAINT "uni_webhook_url_deny_list_pattern" UNIQUE ("pattern")']
        extra = unique if table == "webhook_url_deny_list" else []
        yield f'CREATE TABLE "{table}" ({", ".join([*columns, f"PRIMARY KEY ({key})", *extra])})'
        for index in facts["indexes"]:
            if index["name"] != "idx_webhook_deny_pattern":
                listed = ", ".join(f'"{name}"' for name in index["columns"])
                kind = "UNIQUE INDEX" if index["unique"] else "INDEX"
                yield f'CREATE {kind} IF NOT EXISTS "{index["name"]}" ON "{table}" ({listed})'
    for table, facts in FACTS.items():
        for key in facts["foreign_keys"]:
            columns = ", ".join(f'"{name}"' for name in key["columns"])
            referenced = ", ".join(f'"{name}"' for name in key["referenced_columns"])
            action = f" ON DELETE {key['on_delete']}" if key["on_delete"] else ""
            yield (
                f'ALTER TABLE "{table}" ADD CONSTRAINT "{key["name"]}" FOREIGN KEY ({columns}) '
                f'REFERENCES "{key["references"]}"({referenced}){action}'
            )
    yield _BEYOND_THE_MODELS


def _gorm_column(table: str, column: dict[str, Any]) -> str:
    # GORM numbers an integer field called ID by itself, also where it is part of a key.
    kind = "bigserial" if (table, column["name"]) == ("triage_notes", "id") else column["type"]
    default = f" DEFAULT {column['default']}" if column["default"] is not None else ""
    required = "" if column["nullable"] else " NOT NULL"
    return f'"{column["name"]}" {kind}{required}{default}'
