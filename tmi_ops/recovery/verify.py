"""Verifies a logical backup: restores it into a scratch cluster and compares it with its source.

1. fetch: check every object's size and SHA-256 against the manifest;
2. restore: roles, then the dump, into an empty cluster of the source's major version;
3. compare: every table's fingerprint, every object's definition, every sequence;
4. validate: the schema that TMI needs.

The result is recorded in the store beside the backup.

The lock table of the scratch cluster is sized for it: a script is restored in one transaction, and the dump that counts
the copy locks every table at once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops import __version__
from tmi_ops.backup.archive.files import TOC_FILE, read_toc
from tmi_ops.backup.archive.toc import ArchiveError
from tmi_ops.backup.copying import TOC_OBJECT
from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError, ObjectMissingError, ProgramError, RecoveryError
from tmi_ops.postgres.cluster import require_free_space, scratch_cluster
from tmi_ops.postgres.lock_table import SETTING, LockTable
from tmi_ops.postgres.own_checks import ask_of_copy
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.versions import major_of
from tmi_ops.profile import Profile
from tmi_ops.progress import Report
from tmi_ops.recovery.compare import Comparison, compare_with_source
from tmi_ops.recovery.fetch import FetchedBackup, disk_needed, fetch_backup
from tmi_ops.recovery.load import load_dump
from tmi_ops.recovery.new_database import create_database
from tmi_ops.recovery.requirements import make_tablespaces, missing_at, not_here, require_extensions, requirements_of
from tmi_ops.recovery.roles import restore_roles
from tmi_ops.recovery.surroundings import apply_properties, read_surroundings
from tmi_ops.schema.validation import Validation, validate_schema
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.backup_documents import record_verification, whole_manifest
from tmi_ops.store.manifest import Manifest, Verification
from tmi_ops.store.objects import ObjectStore

# Default of max_connections, which scratch clusters use.
_SESSIONS = 100
# A table has at least three entries in a dump, and takes further locks: TOAST table, indexes, sequence.
_LOCKS_PER_ENTRY = 1.5


def lock_parameters(fetched: FetchedBackup) -> dict[str, str]:
    """Parameters of a scratch cluster that can lock every object of the dump at once."""
    return {SETTING: str(LockTable(0, _SESSIONS).max_locks_for(int(_entries(fetched) * _LOCKS_PER_ENTRY)))}


def _entries(fetched: FetchedBackup) -> int:
    names = {item.name for item in fetched.manifest.objects}
    if TOC_OBJECT in names:
        return len(read_toc(fetched.path(TOC_OBJECT)).entries)
    if fetched.dump.is_dir() and not (fetched.dump / TOC_FILE).is_file():
        return 0
    if fetched.manifest.format in ("custom", "directory"):
        return len(read_toc(fetched.dump).entries)
    return 4 * len(fetched.manifest.fingerprints)  # a script of an earlier release has no table of contents


@dataclass
class _Findings:
    """What the verification has found so far."""

    reasons: list[str] = field(default_factory=list)
    but_for: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    validation: Validation | None = None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] = time.monotonic() - start


@dataclass(frozen=True)
class VerifyResult:
    """The recorded result, and the schema findings."""

    verification: Verification
    validation: Validation | None


def verify_backup(settings: Settings, store: ObjectStore, manifest: Manifest, report: Report) -> VerifyResult:
    """Verify a logical backup, and record the result beside it.

    A backup is verified when its restored copy equals its source. Deviations from TMI's schema in the source itself are
    reported, but do not fail the backup.

    Raises:
        ProgramError: programs of the source's major version are missing. Nothing is recorded.
        DiskSpaceError: there is too little disk space. Nothing is recorded.
        StoreError: the store did not answer. Nothing is recorded.
        NotHereError: this machine lacks something that the backup needs, such as an extension. Nothing is recorded.
    """
    manifest = whole_manifest(store, manifest)
    programs = server_programs(major_of(manifest.server_version_num), settings.pg_bindir, settings.copy_libraries)
    scratch_root = settings.home / "scratch"
    require_free_space(scratch_root, disk_needed(manifest), f"Restoring {manifest.backup_id}")
    findings = _Findings()
    scratch_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=scratch_root) as directory:
        try:
            with findings.timed("fetch"):
                fetched = fetch_backup(store, manifest, Path(directory), report)
            _restore_and_compare(fetched, programs, scratch_root, settings.profile, findings, report)
        except (IntegrityError, ObjectMissingError, ArchiveError, _RestoreFailedError) as failure:
            findings.reasons.append(failure.message)
    verification = _verification(manifest, programs, findings)
    record_verification(store, verification)
    return VerifyResult(verification, findings.validation)


class _RestoreFailedError(RecoveryError):
    """The backup's bytes are intact, but PostgreSQL could not restore them."""

    default_code = Code.LOAD_FAILED


def _restore_and_compare(
    fetched: FetchedBackup,
    programs: Programs,
    scratch_root: Path,
    profile: Profile,
    findings: _Findings,
    report: Report,
) -> None:
    surroundings = read_surroundings(fetched, report)
    with ExitStack() as stack:
        with findings.timed("scratch cluster"):
            cluster = stack.enter_context(scratch_cluster(programs, scratch_root, parameters=lock_parameters(fetched)))
        database = "restored"
        address = cluster.address.model_copy(update={"database": database})
        with findings.timed("restore"):
            findings.but_for.extend(restore_roles(cluster.address, surroundings.roles, report).refused)
            missing = missing_at(cluster.address, requirements_of(fetched, surroundings.database))
            require_extensions(missing)
            make_tablespaces(cluster.address, missing.tablespaces)
            create_database(cluster.address, surroundings.database, database, report)
            try:
                load_dump(address, fetched, programs, report)
                findings.but_for.extend(apply_properties(address, surroundings.database, report))
            except ProgramError as error:
                raise not_here(error) or _RestoreFailedError(error.message) from error
        with findings.timed("compare"):
            findings.comparison = compare_with_source(address, fetched, programs, report)
            findings.reasons.extend(findings.comparison.differences)
            findings.but_for.extend(findings.comparison.notes)
        with findings.timed("validate"):
            if profile.has_models:
                findings.validation = validate_schema(address)
            findings.but_for.extend(_own_checks(address, profile, programs))


def _own_checks(copy: PostgresSettings, profile: Profile, programs: Programs) -> Iterator[str]:
    """Failed application checks of the copy. The source would fail them, too, so they do not fail the backup."""
    for one in ask_of_copy(copy, programs.major, profile.checks):
        if one.outcome != "passed":
            yield f"Application check {one.name}: {one.text}."


def _verification(manifest: Manifest, programs: Programs, findings: _Findings) -> Verification:
    comparison = findings.comparison
    return Verification(
        backup_id=manifest.backup_id,
        outcome="failed" if findings.reasons else "proven",
        verified_at=datetime.now(UTC),
        reasons=tuple(findings.reasons),
        but_for=(*manifest.left_behind, *findings.but_for),
        phases=findings.phases,
        restore_seconds=findings.phases.get("fetch", 0.0) + findings.phases.get("restore", 0.0),
        tables=len(comparison.fingerprints) if comparison else 0,
        rows=comparison.rows if comparison else 0,
        server_version=programs.version,
        tmi_ops_version=__version__,
        manifest_sha256=manifest.stored_sha256,
    )
