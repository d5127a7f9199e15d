"""A probe: one question to the server, and how its answer is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tmi_ops.checks.finding import Answer
from tmi_ops.health.answer import Reading
from tmi_ops.health.thresholds import Thresholds
from tmi_ops.profile import Profile

if TYPE_CHECKING:
    from tmi_ops.health.session import ProbeSession

R = TypeVar("R", bound=Reading)

# Shows other sessions' states and queries; pg_monitor includes it.
READ_ALL_STATS = "pg_read_all_stats"
READ_ALL_SETTINGS = "pg_read_all_settings"


class Area(StrEnum):
    """The subject of a probe. Each area is an asset."""

    about: str

    def __new__(cls, value: str, about: str) -> Area:
        area = str.__new__(cls, value)
        area._value_ = value
        area.about = about
        return area

    ACTIVITY = "activity", "Connections, queries, locks and transactions"
    STORAGE = "storage", "Sizes, growth, bloat, disk and checksums"
    VACUUM = "vacuum", "Autovacuum, statistics and wraparound"
    WAL_AND_REPLICATION = "wal_and_replication", "Checkpoints, WAL, archiving, slots and standbys"
    INDEXES = "indexes", "Invalid, duplicate, unused, bloated and missing indexes"
    SCHEMA = "schema", "Migration, schema findings and sequences"
    SECURITY = "security", "TLS and failed logins"


@dataclass(frozen=True)
class Probe(Generic[R]):
    """One probe.

    Attributes:
        name: stable: it names the asset check, the threshold override and `--probe`.
        title: what it looks at, as a heading.
        figure: describes the figure that the thresholds apply to.
        read: queries the server; raises `CannotTell` if it cannot.
        judge: pure.
        fits: whether the probe applies to an application of this profile.
        needs: predefined roles without which the reading would be wrong, not refused.
    """

    name: str
    area: Area
    title: str
    figure: str
    thresholds: Thresholds
    read: Callable[[ProbeSession], R]
    judge: Callable[[R, Thresholds], Answer]
    needs: tuple[str, ...] = ()
    fits: Callable[[Profile], bool] = lambda _profile: True


AnyProbe = Probe[Any]
