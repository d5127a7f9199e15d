"""Settings from environment variables, .env files and tmi-ops.toml; recovery objectives by environment.

Variables have the guide's names (Environment Configuration): POSTGRES_*, REDIS_*. The TMI server's own
TMI_DATABASE_URL, TMI_REDIS_URL and TMI_REDIS_* are read, too. The process overrides `.env.<environment>`, which
overrides what the embedded stack wrote when it started.
"""

from tmi_ops.settings.durations import parse_duration
from tmi_ops.settings.facts import (
    OBJECTIVES,
    AlertSettings,
    CachePolicy,
    Objectives,
    PostgresSettings,
    RedisSettings,
    Retain,
    RetentionPolicy,
    SessionPolicy,
    Settings,
    StoreSettings,
    without_credentials,
)
from tmi_ops.settings.fleet import Declared, Fleet, declare, find_fleet
from tmi_ops.settings.purposes import PURPOSES, Purpose
from tmi_ops.settings.reading import (
    environment_name,
    load_settings,
    name_for_others,
    profile_of,
    read_source,
    read_variables,
    variables_of,
)
from tmi_ops.settings.sources import STACK_ENV_FILE, env_file_names

__all__ = [
    "OBJECTIVES",
    "PURPOSES",
    "STACK_ENV_FILE",
    "AlertSettings",
    "CachePolicy",
    "Declared",
    "Fleet",
    "Objectives",
    "PostgresSettings",
    "Purpose",
    "RedisSettings",
    "Retain",
    "RetentionPolicy",
    "SessionPolicy",
    "Settings",
    "StoreSettings",
    "declare",
    "env_file_names",
    "environment_name",
    "find_fleet",
    "load_settings",
    "name_for_others",
    "parse_duration",
    "profile_of",
    "read_source",
    "read_variables",
    "variables_of",
    "without_credentials",
]
