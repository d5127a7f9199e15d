"""The variables that tmi_ops reads, and those that look like one but are not, such as TMI_OPS_RETIAN."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from tmi_ops.error_codes import Code
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
        # Set for the processes of runs.
        "TMI_OPS_RUN_ID",
    }
)
# A probe or a role follows, which only the health and access rooms know.
OPEN_ENDED = ("TMI_OPS_HEALTH_", "TMI_OPS_ROLE_NAME_", "TMI_OPS_ROLE_PASSWORD_")
# The fields of type SecretStr, and the passwords of purposes.
SECRETS = frozenset(
    {
        *(
            variable
            for model, variables in GROUPS
            for field, variable in variables.items()
            if "SecretStr" in str(model.model_fields[field].annotation)
        ),
        *(purpose.password_variable for purpose in Purpose),
    }
)
_PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:[^/\s@]+@")
# Not read by this program: the tests', and the sample reverse proxy's.
_OURS_TOO = tuple(f"{PREFIX}{word}" for word in ("TEST_", "LOOK", "OPERATE"))
_SHARED_PREFIXES = ("POSTGRES_", "REDIS_", "TMI_")
# Similarity, 0 to 1, of what follows the prefix. Other programs use the shared prefixes, too, so only a close match
# counts as a misspelling there.
_NEAR, _NEARLY = 0.6, 0.75


@dataclass(frozen=True)
class Unread:
    """A variable that nothing reads. `meant`: the most similar setting; None: none is similar."""

    name: str
    meant: str | None

    def describe(self) -> str:
        hint = f" Did you mean {self.meant}?" if self.meant else ""
        return f"{self.name} is not a setting and is ignored.{hint}"


def unread_names(names: Iterable[str]) -> tuple[Unread, ...]:
    """The variables that look like settings but are not, by name."""
    found = (_unread(name) for name in sorted(names))
    return tuple(item for item in found if item is not None)


def is_known(name: str) -> bool:
    """Whether it is a setting."""
    return name in KNOWN or name.startswith(OPEN_ENDED)


def nearest_name(name: str) -> str | None:
    """The setting most similar to a misspelt one; None: none is similar."""
    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=_NEARLY)
    return near[0] if near else None


def refuse_secret(name: str, value: str, where: str) -> None:
    """Raises SettingsError: this value is a secret, which must not be in a file that is shared."""
    if name in SECRETS or name.startswith("TMI_OPS_ROLE_PASSWORD_") or _PASSWORD_IN_URL.search(value):
        raise SettingsError(
            f"{where} contains {name} in the clear; such a file is copied, sent and kept in version control.",
            hint=f'name a file that contains it with {name}_FILE = "...", or an environment variable with '
            f'{name}_ENV = "...", then replace the secret, because others may have read it',
            code=Code.SECRET_IN_CLEAR,
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
