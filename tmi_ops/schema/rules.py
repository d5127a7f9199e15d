"""The rules a schema is checked for. Cheap to import: a code location lists every rule without a database."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Level = Literal["ERROR", "WARN", "INFO", "DEBUG"]
LEVELS: tuple[Level, ...] = ("ERROR", "WARN", "INFO", "DEBUG")


class Rule(StrEnum):
    """A rule, and what it means that it holds. Each rule can be shown as a check of its own."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Rule:
        rule = str.__new__(cls, value)
        rule._value_ = value
        rule.meaning = meaning
        return rule

    MISSING_TABLE = "missing_table", "Every table that TMI needs exists."
    UNREADABLE_TABLE = "unreadable_table", "The role may read every table of TMI."
    MISSING_COLUMN = "missing_column", "Every column exists."
    COLUMN_TYPE = "column_type", "Every column has the type in the model."
    COLUMN_NULLABILITY = "column_nullability", "Every column is NOT NULL or allows NULL as in the model."
    COLUMN_DEFAULT = "column_default", "Every column has the default in the model."
    MISSING_PRIMARY_KEY = "missing_primary_key", "Every table has its primary key."
    MISSING_INDEX = "missing_index", "Every index exists, under any name."
    INVALID_INDEX = "invalid_index", "No index is invalid after an unfinished build."
    INDEX_DIFFERS = "index_differs", "Every index is unique or not as in the model, and no other index has its name."
    MISSING_FOREIGN_KEY = "missing_foreign_key", "Every foreign key exists."
    FOREIGN_KEY_DIFFERS = "foreign_key_differs", "Every foreign key has the actions in the model."
    FOREIGN_KEY_VIOLATED = "foreign_key_violated", "No row references a row that does not exist."
    MISSING_CHECK = "missing_check", "Every CHECK constraint exists."
    CHECK_DIFFERS = "check_differs", "Every CHECK allows exactly the values that TMI writes."
    CHECK_VIOLATED = "check_violated", "No row has a value that a CHECK refuses."
    CONSTRAINT_NOT_VALID = "constraint_not_valid", "Every constraint is validated for existing rows."
    EXTRA_TABLE = "extra_table", "Every table is in TMI's models."
    EXTRA_COLUMN = "extra_column", "Every column is in TMI's models."
    EXTRA_INDEX = "extra_index", "Every index is in TMI's models."
    EXTRA_CONSTRAINT = "extra_constraint", "Every constraint is in TMI's models."
    EXTRA_OBJECT = "extra_object", "Every view, sequence, trigger and function is in TMI's models."
    OTHER_NAME = "other_name", "Every object has the name in the models."
    SUMMARY = "summary", "The result in one line."
