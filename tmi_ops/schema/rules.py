"""What a schema is checked for. Light to import: a code location shows every rule before any database is read."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Level = Literal["ERROR", "WARN", "INFO", "DEBUG"]
LEVELS: tuple[Level, ...] = ("ERROR", "WARN", "INFO", "DEBUG")


class Rule(StrEnum):
    """What is checked, and what it means that it holds. Each rule can be shown as a check of its own."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Rule:
        rule = str.__new__(cls, value)
        rule._value_ = value
        rule.meaning = meaning
        return rule

    MISSING_TABLE = "missing_table", "Every table TMI needs is there."
    UNREADABLE_TABLE = "unreadable_table", "The role may read every table of TMI."
    MISSING_COLUMN = "missing_column", "Every column is there."
    COLUMN_TYPE = "column_type", "Every column has the type of the model."
    COLUMN_NULLABILITY = "column_nullability", "What must not be NULL is not, and what may be NULL may."
    COLUMN_DEFAULT = "column_default", "Every column has the default of the model."
    MISSING_PRIMARY_KEY = "missing_primary_key", "Every table has its primary key."
    MISSING_INDEX = "missing_index", "Every index is there, under whatever name."
    INVALID_INDEX = "invalid_index", "No index was left invalid by a build that did not finish."
    INDEX_DIFFERS = "index_differs", "Every index is as unique as the model says, and no name is taken by another."
    MISSING_FOREIGN_KEY = "missing_foreign_key", "Every foreign key is there."
    FOREIGN_KEY_DIFFERS = "foreign_key_differs", "Every foreign key acts as the model says when a row is deleted."
    FOREIGN_KEY_VIOLATED = "foreign_key_violated", "No row refers to nothing."
    MISSING_CHECK = "missing_check", "Every CHECK constraint is there."
    CHECK_DIFFERS = "check_differs", "Every CHECK allows what TMI writes, and no more."
    CHECK_VIOLATED = "check_violated", "No row holds a value that a CHECK refuses."
    CONSTRAINT_NOT_VALID = "constraint_not_valid", "Every constraint was validated against the rows that were there."
    EXTRA_TABLE = "extra_table", "There is no table that TMI's models do not know."
    EXTRA_COLUMN = "extra_column", "There is no column that TMI's models do not know."
    EXTRA_INDEX = "extra_index", "There is no index that TMI's models do not know."
    EXTRA_CONSTRAINT = "extra_constraint", "There is no constraint that TMI's models do not know."
    EXTRA_OBJECT = "extra_object", "There is no view, sequence, trigger or function that TMI's models do not know."
    OTHER_NAME = "other_name", "Every object has the name that the models give it."
    SUMMARY = "summary", "The whole in one line."
