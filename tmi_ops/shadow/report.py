"""A shadow's report, in the store and, more recent, on the shadow's own machine.

`shadows/<name>.json` in the store has a signature in its metadata (see store/stamped.py), made with the prover's key.
It is replaced conditionally, so two shadows of one name cannot both report. An old report is refused: it verifies
nothing, whether its shadow has died or an attacker replaced a newer one with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.drill.findings import CheckOutcome
from tmi_ops.errors import ObjectMissingError, OpsError, SettingsError
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.store.backend import IfAbsent, IfUnchanged
from tmi_ops.store.manifest import SEALED_REASON, BrokenRecordError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import get_single, look
from tmi_ops.store.stamped import put_stamped, require_stamp

FOLDER = "shadows"
TAKE_A_BASE = "take a base backup: `tmi-ops backup base`"
LARGEST_REPORT = 1 << 20
# A report is stale after three missed reports, and not before this time.
MISSED_REPORTS, LEAST_PATIENCE = 3, timedelta(seconds=60)
# Tolerance for clock differences; the signing time of a report from further in the future is ignored.
CLOCKS_AGREE_WITHIN = timedelta(seconds=30)
# Troubles that quote the server's log, which may contain data.
_IN_THE_SERVERS_WORDS: frozenset[TroubleKind] = frozenset(
    {"record that cannot be replayed", "minimal WAL", "server", "disk full"}
)
# Troubles caused by the WAL itself.
OF_THE_WAL: frozenset[TroubleKind] = frozenset(
    {"splice", "hole", "damaged object", "untrusted object", "minimal WAL", "record that cannot be replayed"}
)
DAMAGE_CHECKS = ("amcheck", "heartbeat", "page_checksums")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SHA256 = "sha256"

State = Literal["restoring", "catching up", "level", "stopped", "ended"]
TroubleKind = Literal[
    "splice", "hole", "damaged object", "untrusted object", "minimal WAL", "foreign timeline", "left line",
    "record that cannot be replayed", "damaged copy", "store away", "disk full", "server", "no base backup",
]  # fmt: skip


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Trouble(_Fact):
    """Something that stops the replay, or that the user should know about.

    Args:
        what: one sentence; `hint`: what to do.
        lsn: the exact place, if any; `segment`: PostgreSQL's name of the object.
        stops: nothing is replayed beyond it.
    """

    kind: TroubleKind
    what: str
    hint: str = Field(
        default="", validation_alias=AliasChoices("hint", "next_step")
    )  # the name in reports of earlier releases
    lsn: str | None = None
    segment: str | None = None
    since: AwareDatetime
    stops: bool = True


class RollingCheck(_Fact):
    """The newest result of a periodic check. `covered`: progress of the current round, 0 to 1."""

    name: str
    outcome: CheckOutcome
    detail: str = ""
    findings: tuple[str, ...] = ()
    at: AwareDatetime
    covered: float | None = None


class ShadowReport(_Fact):
    """How far a shadow has replayed the archive, and what is wrong.

    Args:
        every_s: seconds until the next report.
        replayed_lsn: everything before it is replayed; `commit_at`: the newest replayed commit.
        verified_to: everything that the server had flushed at this time is replayed; None: unknown.
        archived_lsn: the known end of the archive; `behind`: bytes of it that are not replayed.
        has_been_level: it has replayed all archived WAL at least once since its files were restored.
        delay_s: how long it delays each commit on purpose.
        restore_s: how long restoring its files took; promote_s: a practised promotion; None: not measured.
        requests: to the store since it started, by operation.
    """

    format_version: Literal[1] = 1
    name: str
    host: str
    environment: str
    system_identifier: str = ""
    timeline: int = 0
    backup_id: str = ""
    began_at: AwareDatetime
    written_at: AwareDatetime
    every_s: float
    state: State
    replayed_lsn: str | None = None
    commit_at: AwareDatetime | None = None
    verified_to: AwareDatetime | None = None
    archived_lsn: str | None = None
    behind: int = 0
    has_been_level: bool = False
    delay_s: float = 0.0
    restore_s: float | None = None
    promote_s: float | None = None
    troubles: tuple[Trouble, ...] = ()
    checks: tuple[RollingCheck, ...] = ()
    requests: dict[str, int] = Field(default_factory=dict)

    @property
    def stopped_by(self) -> Trouble | None:
        """The trouble that stops it, or None."""
        return next((one for one in self.troubles if one.stops), None)

    @property
    def damage(self) -> tuple[RollingCheck, ...]:
        """The checks that found damage in what it has replayed.

        The schema is not among them: a shadow cannot tell whether the live database lacks the same.
        """
        return tuple(one for one in self.checks if one.outcome == "failed" and one.name in DAMAGE_CHECKS)

    @property
    def is_sound(self) -> bool:
        """Whether no damage was found, and nothing stops it."""
        return not self.damage and self.stopped_by is None


@dataclass(frozen=True)
class KnownReport:
    """A report and its age, by whichever clock makes it older."""

    report: ShadowReport
    age: timedelta

    @property
    def is_stale(self) -> bool:
        """Whether the report is too old to count."""
        return is_stale(self.age, self.report.every_s)


def is_stale(age: timedelta, every_s: float) -> bool:
    """Whether a report of this age is too old to count. Pure."""
    return age > max(LEAST_PATIENCE, timedelta(seconds=MISSED_REPORTS * every_s))


def age_of(report: ShadowReport, stored_for: timedelta, now: datetime) -> timedelta:
    """The age of a report: by the store's clock since it was stored, and by ours since it was signed. Pure.

    The larger one counts: an old report that is stored again is new only to the store. If the clocks of the two
    machines disagree so much that the report seems to come from the future, only the store's clock counts.
    """
    signed_for = now - report.written_at
    return stored_for if signed_for < -CLOCKS_AGREE_WITHIN else max(stored_for, signed_for, timedelta(0))


def report_key(name: str) -> str:
    """The key of a shadow's report.

    Raises:
        SettingsError: the name is not valid.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(
            f"{name!r} is not a valid name for a shadow.",
            hint="use up to 40 lower-case letters, digits and hyphens with --name",
        )
    return f"{FOLDER}/{name}.json"


def name_from(host: str) -> str:
    """The default name of a shadow, from its host's name."""
    return re.sub(r"[^a-z0-9]+", "-", host.split(".")[0].lower()).strip("-")[:40] or "shadow"


class ReportWriter:
    """Stores one shadow's reports."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._key = store, report_key(name)
        self._etag: str | None = None

    def write(self, report: ShadowReport) -> None:
        """Replace the last report.

        Raises:
            ObjectExistsError: another shadow reports under this name.
            UntrustedError: keys are pinned, and ours may not sign verifications.
            StoreError: the store failed.
        """
        shown = _in_clear(report) if self._store.recipients else report
        body = shown.model_dump_json(indent=1).encode() + b"\n"
        if self._etag is None:
            head = look(self._store, self._key)
            condition = IfAbsent() if head is None else IfUnchanged(head.etag)
        else:
            condition = IfUnchanged(self._etag)
        facts = {_SHA256: hashlib.sha256(body).hexdigest()}
        self._etag = put_stamped(self._store, self._key, body, facts, condition, "proof").etag


def require_right_to_report(store: ObjectStore) -> None:
    """Raises:
    SettingsError: readers with the same pinned keys would refuse our reports.
    """
    if store.trust.is_pinned and not store.trust.may_sign("proof"):
        raise SettingsError(
            "Keys are pinned (TMI_OPS_TRUSTED_KEYS), and this host's key may not sign verifications, so this "
            "shadow's reports would not be trusted.",
            hint="set TMI_OPS_SIGNING_KEY_FILE to the prover's key: `tmi-ops keys show`",
        )


def read_reports(store: ObjectStore, broken: Callable[[OpsError], object] = lambda _: None) -> list[KnownReport]:
    """All shadows' reports, the most recent first. Needs one request to list them, and one to read each.

    Args:
        broken: called for each report that cannot be read or has no trusted signature.

    Raises:
        StoreError: the store failed.
    """
    return reports_at(store, [item.key for item in store.list_objects(f"{FOLDER}/")], broken)


def reports_at(
    store: ObjectStore, keys: Sequence[str], broken: Callable[[OpsError], object] = lambda _: None
) -> list[KnownReport]:
    """Like `read_reports`, from a listing that was read already.

    Raises:
        StoreError: the store failed.
    """
    found = []
    for key in keys:
        name = key.removeprefix(f"{FOLDER}/").removesuffix(".json")
        if key != f"{FOLDER}/{name}.json" or _NAME.fullmatch(name) is None:
            continue
        try:
            found.append(_read(store, key, name))
        except ObjectMissingError:
            continue
        except OpsError as error:
            if error.transient:
                raise
            broken(error)
    return sorted(found, key=lambda one: one.age)


def prover_of(reports: Sequence[KnownReport], system_identifier: str) -> KnownReport | None:
    """The shadow whose report counts: of this cluster, not stale, without delay, and furthest ahead."""
    fitting = [
        one
        for one in reports
        if one.report.system_identifier == system_identifier
        and not one.is_stale
        and not one.report.delay_s
        and one.report.state not in ("restoring", "ended")
        and one.report.verified_to is not None
    ]
    return max(fitting, key=lambda one: (one.report.is_sound, one.report.verified_to), default=None)


def trouble_at(kind: TroubleKind, what: str, hint: str, lsn: int | None, segment: str | None) -> Trouble:
    """A new trouble that stops the replay, with its place in the WAL."""
    place = None if lsn is None else format_lsn(lsn)
    return Trouble(kind=kind, what=what, hint=hint, lsn=place, segment=segment, since=datetime.now(UTC))


def _read(store: ObjectStore, key: str, name: str) -> KnownReport:
    body, head = get_single(store, key, limit=LARGEST_REPORT)
    require_stamp(store, key, head.metadata, None, "proof")
    digest = head.metadata.get(_SHA256)
    if (store.trust.is_pinned or digest) and digest != hashlib.sha256(body).hexdigest():
        raise BrokenRecordError(f"The shadow report {key} does not match its signature.")
    try:
        report = ShadowReport.model_validate_json(body)
    except ValidationError:
        raise BrokenRecordError(f"The shadow report {key} cannot be read.") from None
    if report.name != name:
        raise BrokenRecordError(f"The shadow report {key} is of another shadow, {report.name}: it was renamed.")
    return KnownReport(report, age_of(report, timedelta(seconds=head.age_s), datetime.now(UTC)))


def _in_clear(report: ShadowReport) -> ShadowReport:
    """The part that is stored unencrypted: times, places and outcomes, nothing about the content."""
    checks = tuple(
        one.model_copy(update={"detail": "", "findings": (SEALED_REASON,) if one.findings else ()})
        for one in report.checks
    )
    troubles = tuple(
        one.model_copy(update={"what": f"The shadow is stopped at {one.lsn or 'no place in the WAL'}: {one.kind}."})
        if one.kind in _IN_THE_SERVERS_WORDS
        else one
        for one in report.troubles
    )
    return report.model_copy(update={"checks": checks, "troubles": troubles})
