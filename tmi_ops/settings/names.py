"""The variables tmi_ops knows, and those that look like one and are none: nobody reads TMI_OPS_RETIAN."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from tmi_ops.errors import SettingsError
from tmi_ops.settings.alerting import ALERT_VARIABLES
from tmi_ops.settings.facts import AlertSettings, PostgresSettings, RedisSettings, StoreSettings
from tmi_ops.settings.groups import POSTGRES_VARIABLES, REDIS_VARIABLES, STORE_VARIABLES, TMI_REDIS_VARIABLES
from tmi_ops.settings.purposes import LOGINS, PREFIX, Purpose

# Each model with the variables of its fields.
GROUPS: tuple[tuple[type[BaseModel], Mapping[str, str]], ...] = (
    (PostgresSettings, POSTGRES_VARIABLES),
    (RedisSettings, REDIS_VARIABLES),
    (RedisSettings, TMI_REDIS_VARIABLES),
    (StoreSettings, STORE_VARIABLES),
    (AlertSettings, ALERT_VARIABLES),
)
KNOWN = frozenset(
    {
        "TMI_ENV",
        "TMI_DATABASE_URL",
        "TMI_OPS_PROFILE",
        *(name for _, variables in GROUPS for name in variables.values()),
        "TMI_REDIS_URL",
        *(f"TMI_OPS_KEEP_{part}" for part in ("LAST", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")),
        *(f"TMI_OPS_CACHE_{part}" for part in ("SESSIONS", "DROP", "KEEP")),
        "TMI_OPS_ALERT_REPEAT",
        "TMI_OPS_CONFIG",
        *(f"TMI_OPS_RECOVERY_{part}" for part in ("WINDOW", "DIRECTORIES", "ADDRESSES", "SQL")),
        *(f"TMI_OPS_{part}" for part in ("AGE_RECIPIENTS", "TRUSTED_KEYS")),
        *(f"TMI_OPS_{part}" for part in ("RETAIN", "RPO", "RTO", "HOME", "PG_BINDIR", "COPY_LIBRARIES")),
        "TMI_OPS_ALLOW_INSECURE_POSTGRES",
        *(f"TMI_OPS_{part}" for part in ("MAINTENANCE_WINDOW", "AUTOMATION", "TIMEZONE", "UI_HOSTS")),
        *(f"TMI_OPS_{part}" for part in ("APP_ROLE", "APP_HEALTH_URL", "STOP_HOOK", "START_HOOK", "CONNECT_HOOK")),
        *LOGINS,
        # Written for the runs' own processes.
        "TMI_OPS_RUN_ID",
    }
)
# What names a probe or a role behind it, which only the health and access rooms know.
OPEN_ENDED = ("TMI_OPS_HEALTH_", "TMI_OPS_ROLE_NAME_", "TMI_OPS_ROLE_PASSWORD_")
# Those whose field is a SecretStr, and the passwords of purposes.
SECRETS = frozenset(
    {
        *(
            variable
            for model, variables in GROUPS
            for field, variable in variables.items()
            if "SecretStr" in str(model.model_fields[field].annotation)
        ),
        *(f"{PREFIX}{purpose.upper()}_PASSWORD" for purpose in Purpose),
    }
)
_PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:[^/\s@]+@")
# Not read by this program: the tests', and the sample reverse proxy's.
_OURS_TOO = tuple(f"{PREFIX}{word}" for word in ("TEST_", "LOOK", "OPERATE"))
_SHARED_PREFIXES = ("POSTGRES_", "REDIS_", "TMI_")
# Likeness, 0 to 1, of what follows the prefix. Other programs own names with the shared prefixes too: there only what
# is nearly one of ours is taken for a slip.
_NEAR, _NEARLY = 0.6, 0.75


@dataclass(frozen=True)
class Unread:
    """A variable that nothing reads. `meant`: the known name it most resembles; None: none is near."""

    name: str
    meant: str | None

    def describe(self) -> str:
        hint = f" Did you mean {self.meant}?" if self.meant else ""
        return f"{self.name} is not a setting and is ignored.{hint}"


def unread_names(names: Iterable[str]) -> tuple[Unread, ...]:
    """Those of the variables that a person wrote for us and nothing reads, by name."""
    found = (_unread(name) for name in sorted(names))
    return tuple(item for item in found if item is not None)


def is_known(name: str) -> bool:
    """Whether it is one of ours."""
    return name in KNOWN or name.startswith(OPEN_ENDED)


def nearest_name(name: str) -> str | None:
    """The setting that a misspelt one most resembles; None: none is near."""
    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=_NEARLY)
    return near[0] if near else None


def refuse_secret(name: str, value: str, where: str) -> None:
    """Raises SettingsError: this value is a secret, which must not stand in a file that is shared."""
    if name in SECRETS or name.startswith("TMI_OPS_ROLE_PASSWORD_") or _PASSWORD_IN_URL.search(value):
        raise SettingsError(
            f"{where} holds {name} in the clear; such a file is copied, sent and kept in version control.",
            hint=f'name a file that holds it: {name}_FILE = "...", or a variable of the process: '
            f'{name}_ENV = "..."; then replace the secret, which others may have read',
        )


def _unread(name: str) -> Unread | None:
    if name in KNOWN or name.startswith((*OPEN_ENDED, *_OURS_TOO)):
        return None
    if name.startswith(PREFIX):
        return Unread(name, _nearest(name, PREFIX, _NEAR))
    for prefix in _SHARED_PREFIXES:
        if name.startswith(prefix) and (meant := _nearest(name, prefix, _NEARLY)):
            return Unread(name, meant)
    return None


def _nearest(name: str, prefix: str, likeness: float) -> str | None:
    ends = {known.removeprefix(prefix): known for known in KNOWN if known.startswith(prefix)}
    near = difflib.get_close_matches(name.removeprefix(prefix), ends, n=1, cutoff=likeness)
    return ends[near[0]] if near else None
