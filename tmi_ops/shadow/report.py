"""What a shadow says of itself: a fact with a time, kept in the store and, fresher, on the shadow's own machine.

`shadows/<name>.json` in the store carries its signature in its metadata (see store/stamped.py), made with the prover's
key, and is replaced under a condition: two shadows of one name cannot both report. A report that is old is refused: a
shadow that died proves nothing, and neither does a copy of an old report put over a newer one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.errors import ObjectMissingError, OpsError, SettingsError
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.store.manifest import SEALED_REASON, BrokenRecordError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.single_put import IfAbsent, IfUnchanged, get_single, look
from tmi_ops.store.stamped import put_stamped, require_stamp

FOLDER = "shadows"
LARGEST_REPORT = 1 << 20
# A report is missed when three of its kind have not come, and never before this.
MISSED_REPORTS, LEAST_PATIENCE = 3, timedelta(seconds=60)
# Clocks of machines that keep them; a report from further in the future has no age.
CLOCKS_AGREE_WITHIN = timedelta(seconds=30)
# Troubles that quote the server's log, which may name what is in the database.
_IN_THE_SERVERS_WORDS: frozenset[TroubleKind] = frozenset(
    {"record that cannot be replayed", "minimal WAL", "server", "disk full"}
)
# What the place in the WAL is to blame for, and nothing else.
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
Outcome = Literal["passed", "failed", "not run", "not applicable"]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Trouble(_Fact):
    """What keeps the shadow from replaying on, or what it met beside its way.

    Args:
        what: a sentence; `hint` helps.
        lsn: the exact place, where there is one; `segment`: the object, as PostgreSQL names it.
        stops: nothing is replayed beyond it.
    """

    kind: TroubleKind
    what: str
    hint: str = Field(default="", validation_alias=AliasChoices("hint", "next_step"))  # as reports of before have it
    lsn: str | None = None
    segment: str | None = None
    since: AwareDatetime
    stops: bool = True


class RollingCheck(_Fact):
    """The newest answer to a question that is asked again and again. `covered`: 0 to 1, of a round under way."""

    name: str
    outcome: Outcome
    detail: str = ""
    findings: tuple[str, ...] = ()
    at: AwareDatetime
    covered: float | None = None


class ShadowReport(_Fact):
    """How far the archive has been replayed, by whom, and what is wrong.

    Args:
        every_s: the next one comes after so many seconds.
        replayed_lsn: everything before it is replayed; `commit_at`: the newest commit in it.
        verified_to: everything that the server had flushed until then is replayed; None: nothing shows it yet.
        archived_lsn: how far the archive goes, as far as the shadow knows; `behind`: bytes of that not replayed.
        has_been_level: it had replayed all that was archived, at least once since its files were restored.
        delay_s: how long it waits on purpose before it replays a commit.
        restore_s: how long its files took to come; promote_s: a promotion, as it was practised; None: not yet.
        requests: to the store since it began, by operation.
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
        """What it cannot pass; None: nothing stops it."""
        return next((one for one in self.troubles if one.stops), None)

    @property
    def damage(self) -> tuple[RollingCheck, ...]:
        """The checks by which what it has replayed is not what it should be.

        What the schema lacks is not among them: a shadow asks no living database whether that lacks it, too.
        """
        return tuple(one for one in self.checks if one.outcome == "failed" and one.name in DAMAGE_CHECKS)

    @property
    def is_sound(self) -> bool:
        """Whether nothing speaks against what it has replayed, and nothing stops it."""
        return not self.damage and self.stopped_by is None


@dataclass(frozen=True)
class KnownReport:
    """A report that was read. `age`: since it was written, by whichever clock makes it older."""

    report: ShadowReport
    age: timedelta

    @property
    def is_stale(self) -> bool:
        """Whether it says nothing of now."""
        return is_stale(self.age, self.report.every_s)


def is_stale(age: timedelta, every_s: float) -> bool:
    """Whether a report of this age is refused. Pure."""
    return age > max(LEAST_PATIENCE, timedelta(seconds=MISSED_REPORTS * every_s))


def age_of(report: ShadowReport, stored_for: timedelta, now: datetime) -> timedelta:
    """How old a report is: by the store's clock since it was put there, and by ours since it was signed. Pure.

    The older counts: an old report that was put there again is young to the store alone. Where the two machines' clocks
    disagree, so that it seems to come from the future, only the store's counts.
    """
    signed_for = now - report.written_at
    return stored_for if signed_for < -CLOCKS_AGREE_WITHIN else max(stored_for, signed_for, timedelta(0))


def report_key(name: str) -> str:
    """The key of a shadow's report.

    Raises:
        SettingsError: no shadow may be called so.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(
            f"{name!r} cannot be a shadow's name.",
            hint="use up to 40 lower-case letters, digits and hyphens: --name",
        )
    return f"{FOLDER}/{name}.json"


def name_from(host: str) -> str:
    """The name of a shadow that nobody named: its host's."""
    return re.sub(r"[^a-z0-9]+", "-", host.split(".")[0].lower()).strip("-")[:40] or "shadow"


class ReportWriter:
    """Puts one shadow's reports into the store."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._key = store, report_key(name)
        self._etag: str | None = None

    def write(self, report: ShadowReport) -> None:
        """Put the report over the last one.

        Raises:
            ObjectExistsError: another shadow reports under this name.
            UntrustedError: keys are pinned, and ours may not prove.
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
    SettingsError: readers who pin the same keys would refuse our reports.
    """
    if store.trust.is_pinned and not store.trust.may_sign("proof"):
        raise SettingsError(
            "Keys are pinned (TMI_OPS_TRUSTED_KEYS), and this host's key may not sign proofs, so nobody would believe "
            "this shadow.",
            hint="set TMI_OPS_SIGNING_KEY_FILE to the prover's key: `tmi-ops keys show`",
        )


def read_reports(store: ObjectStore, broken: Callable[[OpsError], object] = lambda _: None) -> list[KnownReport]:
    """All shadows' reports, the freshest first. One request lists them, and one reads each.

    Args:
        broken: told of each report that cannot be understood or that nobody trusted signed.

    Raises:
        StoreError: the store failed.
    """
    return reports_at(store, [item.key for item in store.list_objects(f"{FOLDER}/")], broken)


def reports_at(
    store: ObjectStore, keys: Sequence[str], broken: Callable[[OpsError], object] = lambda _: None
) -> list[KnownReport]:
    """As `read_reports`, of a listing that is at hand already.

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
    """Of several shadows the one whose word counts: of this cluster, fresh, without delay, and replayed furthest."""
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
    """A trouble that was found now and stops the replay, with its place in the WAL."""
    place = None if lsn is None else format_lsn(lsn)
    return Trouble(kind=kind, what=what, hint=hint, lsn=place, segment=segment, since=datetime.now(UTC))


def _read(store: ObjectStore, key: str, name: str) -> KnownReport:
    body, head = get_single(store, key, limit=LARGEST_REPORT)
    require_stamp(store, key, head.metadata, None, "proof")
    digest = head.metadata.get(_SHA256)
    if (store.trust.is_pinned or digest) and digest != hashlib.sha256(body).hexdigest():
        raise BrokenRecordError(f"The shadow's report {key} is not what was signed.")
    try:
        report = ShadowReport.model_validate_json(body)
    except ValidationError:
        raise BrokenRecordError(f"The shadow's report {key} cannot be read.") from None
    if report.name != name:
        raise BrokenRecordError(f"The shadow's report {key} is of another shadow, {report.name}: it was renamed.")
    return KnownReport(report, age_of(report, timedelta(seconds=head.age_s), datetime.now(UTC)))


def _in_clear(report: ShadowReport) -> ShadowReport:
    """Times, places and outcomes, without a word on the content."""
    checks = tuple(
        one.model_copy(update={"detail": "", "findings": (SEALED_REASON,) if one.findings else ()})
        for one in report.checks
    )
    troubles = tuple(
        one.model_copy(update={"what": f"It is stopped at {one.lsn or 'no place in the WAL'}: {one.kind}."})
        if one.kind in _IN_THE_SERVERS_WORDS
        else one
        for one in report.troubles
    )
    return report.model_copy(update={"checks": checks, "troubles": troubles})
