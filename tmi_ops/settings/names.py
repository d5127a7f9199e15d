"""The variables tmi_ops knows, and those that look like one and are none: nobody reads TMI_OPS_RETIAN."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from tmi_ops.settings.purposes import PREFIX, Purpose

KNOWN = frozenset(
    {
        "TMI_ENV",
        "TMI_DATABASE_URL",
        "TMI_OPS_PROFILE",
        *(
            f"POSTGRES_{part}"
            for part in (
                *("HOST", "PORT", "USER", "PASSWORD", "DB", "SSLMODE", "SSLROOTCERT", "SSLCERT", "SSLKEY"),
                *("REQUIRE_AUTH", "CHANNEL_BINDING"),
            )
        ),
        *(
            f"{prefix}{part}"
            for prefix in ("REDIS_", "TMI_REDIS_")
            for part in ("HOST", "PORT", "PASSWORD", "DB", "TLS_ENABLED", "TLS_CA_FILE")
        ),
        "TMI_REDIS_URL",
        *(
            f"TMI_OPS_S3_{part}"
            for part in ("BUCKET", "PREFIX", "ENDPOINT_URL", "REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PURPOSE")
        ),
        *(f"TMI_OPS_KEEP_{part}" for part in ("LAST", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")),
        *(f"TMI_OPS_CACHE_{part}" for part in ("SESSIONS", "DROP", "KEEP")),
        *(f"TMI_OPS_ALERT_{part}" for part in ("URLS", "URLS_WARNING", "URLS_CRITICAL", "REPEAT")),
        *(f"TMI_OPS_RECOVERY_{part}" for part in ("WINDOW", "DIRECTORIES", "ADDRESSES", "SQL")),
        *(f"TMI_OPS_{part}" for part in ("AGE_RECIPIENTS", "AGE_IDENTITY_FILE", "SIGNING_KEY_FILE", "TRUSTED_KEYS")),
        *(f"TMI_OPS_{part}" for part in ("RETAIN", "RPO", "RTO", "HOME", "PG_BINDIR", "COPY_LIBRARIES")),
        "TMI_OPS_ALLOW_INSECURE_POSTGRES",
        *(f"TMI_OPS_{part}" for part in ("HEARTBEAT_URL", "MAINTENANCE_WINDOW", "AUTOMATION", "TIMEZONE", "UI_HOSTS")),
        *(f"TMI_OPS_{part}" for part in ("APP_ROLE", "APP_HEALTH_URL", "STOP_HOOK", "START_HOOK", "CONNECT_HOOK")),
        *(f"{PREFIX}{purpose.upper()}_{part}" for purpose in Purpose for part in ("USER", "PASSWORD", "PASSWORD_FILE")),
        # Written for the runs' own processes.
        "TMI_OPS_RUN_ID",
    }
)
# What names a probe or a role behind it, which only the health and access rooms know.
OPEN_ENDED = ("TMI_OPS_HEALTH_", "TMI_OPS_ROLE_NAME_", "TMI_OPS_ROLE_PASSWORD_")
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
