"""Finishes a recovered cluster: puts the source's settings back, except those that are set aside."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.postgres.configuration import parse_settings, quoted_value, read_settings, setting_of
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.left_settings import Machine, SetAside, raised_settings, set_asides, shown
from tmi_ops.recovery.point_in_time.server import AUTO_CONF, auto_conf_of_source, ended_as, run_as, settings_of_source
from tmi_ops.recovery.point_in_time.target import TARGET_SETTINGS

CONF = "postgresql.conf"
# The source's values of the settings that were set aside.
SET_ASIDE_CONF = "postgresql.set-aside.conf"
_STALE = re.compile(rf"({'|'.join(TARGET_SETTINGS)}|recovery_target_(inclusive|timeline|action))")
_NOT_UNDERSTOOD = re.compile(r'(?:invalid value for|unrecognized configuration) parameter "([^"]+)"')
_OUT_OF_RANGE = re.compile(r'is outside the valid range for parameter "([^"]+)"')
# Each round may reveal settings that the previous error hid.
ROUNDS = 3
CHECK_LIMIT_S, LINES_SHOWN = 60.0, 3


@dataclass(frozen=True)
class Left:
    """The settings set aside. `amiss`: the server's message on what still keeps it from starting; else empty."""

    set_aside: tuple[SetAside, ...]
    amiss: str


def leave_cluster(
    programs: Programs,
    destination: Destination,
    identity: ServerIdentity,
    *,
    waiting: Mapping[str, str] | None,
    subscriptions: int,
    keep_settings: bool,
) -> Left:
    """Put the source's settings back, remove our files, and sync everything to disk.

    Args:
        waiting: settings that make the server wait at the target once started; None if the cluster was promoted.
        subscriptions: how many of the cluster's subscriptions are enabled.
        keep_settings: set aside only values that are too low to start with.

    Raises:
        ProgramError: the files could not be synced.
    """
    directory = destination.directory
    auto_conf = directory / AUTO_CONF
    lines = auto_conf_of_source(destination).splitlines()
    lines = [line for line in lines if not ((found := setting_of(line)) and _STALE.fullmatch(found[0]))]
    source = read_settings(directory / CONF) | parse_settings("\n".join(lines))
    needed = settings_of_source(programs, directory)
    changed = (
        tuple(raised_settings(source, needed))
        if keep_settings
        else set_asides(source, needed, _machine(programs, directory), str(directory), subscriptions)
    )
    own = {one.name: one.now for one in changed} | dict(waiting or {})
    shutil.rmtree(destination.work)
    _write(auto_conf, lines, own, identity)
    if not keep_settings:
        changed += _data_directory_aside(directory, source)
    amiss, unknown = _understood(programs, identity, auto_conf, lines, own, source)
    changed += unknown
    _keep_originals(directory, changed, source, identity)
    run_as(identity, [programs.path("initdb"), "--sync-only", "--pgdata", directory])
    return Left(changed, amiss)


def _write(auto_conf: Path, lines: Collection[str], own: Mapping[str, str], identity: ServerIdentity) -> None:
    kept = [line for line in lines if not ((found := setting_of(line)) and found[0] in own)]
    kept += [f"{name} = {quoted_value(value)}" for name, value in own.items()]
    identity.write(auto_conf, "".join(f"{line}\n" for line in kept).encode())


def _data_directory_aside(directory: Path, source: Mapping[str, str]) -> tuple[SetAside, ...]:
    """Comment out data_directory, which postgresql.auto.conf cannot override."""
    conf = directory / CONF
    if "data_directory" not in source:
        return ()
    lines = conf.read_text(errors="surrogateescape").splitlines()
    mended = [f"#{line}" if (found := setting_of(line)) and found[0] == "data_directory" else line for line in lines]
    conf.write_text("".join(f"{line}\n" for line in mended), errors="surrogateescape")
    before = shown(source["data_directory"])
    return (SetAside("data_directory", before, str(directory), "the server would use another cluster's files"),)


def _understood(
    programs: Programs,
    identity: ServerIdentity,
    auto_conf: Path,
    lines: Collection[str],
    own: dict[str, str],
    source: Mapping[str, str],
) -> tuple[str, tuple[SetAside, ...]]:
    """Let the server parse its files. Unknown values are replaced by the default; other errors are returned."""
    directory = auto_conf.parent
    changed: list[SetAside] = []
    if not (directory / CONF).exists():
        return "", ()
    for _ in range(ROUNDS):
        done = ended_as(identity, [programs.path("postgres"), "-D", directory, "-C", "port"], limit=CHECK_LIMIT_S)
        if done.returncode == 0:
            break
        names = {*_NOT_UNDERSTOOD.findall(done.stderr), *_OUT_OF_RANGE.findall(done.stderr)} - set(own)
        defaults = _defaults(programs) if names else {}
        if not names & set(defaults):
            return shown(" / ".join(done.stderr.strip().splitlines()[-LINES_SHOWN:])), tuple(changed)
        for name in sorted(names & set(defaults)):
            own[name] = defaults[name]
            why = "this server does not accept the value"
            changed.append(SetAside(name, shown(source.get(name, "")), defaults[name], why))
        _write(auto_conf, lines, own, identity)
    return "", tuple(changed)


def _defaults(programs: Programs) -> dict[str, str]:
    """Source: src/backend/utils/misc/help_config.c: name, context, group, type, default, ..."""
    fields = (line.split("\t") for line in run_program([programs.path("postgres"), "--describe-config"]).splitlines())
    # Locale settings default to empty, which is not valid in a file.
    return {field[0]: field[4] or ("C" if field[0].startswith("lc_") else "") for field in fields if len(field) > 4}


def _keep_originals(
    directory: Path, changed: Collection[SetAside], source: Mapping[str, str], identity: ServerIdentity
) -> None:
    lines = [f"{one.name} = {source[one.name]}" for one in changed if one.name in source]
    if lines:
        said = "# The source's values. PostgreSQL does not read this file."
        text = "".join(f"{line}\n" for line in (said, *lines))
        identity.write(directory / SET_ASIDE_CONF, text.encode(errors="replace"))


def _machine(programs: Programs, directory: Path) -> Machine:
    libraries = Path(run_program([programs.path("pg_config"), "--pkglibdir"]).strip())
    if not libraries.is_dir():  # the programs were moved after the build
        libraries = programs.bindir.parent / "lib"

    def is_there(file: str) -> bool:
        return (directory / file).exists()

    def has_library(name: str) -> bool:
        file = name.replace("$libdir", str(libraries))
        return any(
            (place / f"{file}{suffix}").exists()
            for place in (libraries, libraries / "plugins", libraries / "postgresql")
            for suffix in ("", ".so")
        )

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(is_there, has_library, _has_address, memory)


def _has_address(address: str) -> bool:
    if address == "*":
        return True
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(place)
        except OSError:
            continue
        return True
    return False
