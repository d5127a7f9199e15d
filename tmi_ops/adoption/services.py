"""systemd units for the WAL receiver and the heartbeat, rendered from the templates in deploy/systemd.

The templates use fixed accounts and directories; here the account, the program and the directories are those of the
user who runs `tmi-ops init`.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tmi_ops.errors import SettingsError
from tmi_ops.private import make_directory, write_durably
from tmi_ops.settings import Settings

# Where administrators install units, and where systemctl enable puts a link.
SYSTEM_UNITS = Path("/etc/systemd/system")
_KINDS: Mapping[str, str] = {
    "wal": "archives WAL; without it the slot makes the server retain WAL",
    "heartbeat": "writes a heartbeat every minute, which drills check",
}
_PROGRAM = "/opt/tmi_ops/.venv/bin/tmi-ops"
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - the service may need files there
# Quotes, escapes, variables and specifiers, which systemd treats differently in different lines.
_MISREAD = re.compile(r"[\"'\\$%\x00-\x1f]")


@dataclass(frozen=True)
class Site:
    """Where a unit runs.

    Attributes:
        user: the account, by name or number.
        program: `tmi-ops` of this installation.
        directory: where the environment's settings are.
        home: the directory that it writes to.
        told_home: TMI_OPS_HOME, if only the process sets it.
        seen: other files and directories in the settings.
        store: the directory that it stores objects in, if the store is one.
    """

    environment: str
    user: str
    program: Path
    directory: Path
    home: Path
    told_home: Path | None = None
    seen: tuple[Path, ...] = ()
    store: Path | None = None


@dataclass(frozen=True)
class Unit:
    """`file`: where it is written. `why`: what it is for."""

    file: Path
    text: str
    why: str

    @property
    def written(self) -> bool:
        return self.file.is_file() and self.file.read_text(encoding="utf-8") == self.text

    def command(self, *, as_root: bool) -> str:
        """The shell command that starts it now and at boot."""
        file = shlex.quote(str(self.file))
        if as_root:
            return f"systemctl enable --now {file}"
        # A copy, because an unprivileged account must not be able to change a unit that root's systemd starts.
        return f"sudo install -m 0644 {file} {SYSTEM_UNITS}/ && sudo systemctl enable --now {self.file.name}"


def units_for(settings: Settings, directory: Path) -> tuple[Unit, ...]:
    """The units of an environment whose settings are in `directory`. Writes nothing.

    Raises:
        SettingsError: systemd would misread a path, or this program's path is unknown.
    """
    site = _this_site(settings, directory)
    return tuple(
        Unit(file, _text(kind, site), why) for (kind, why), file in zip(_KINDS.items(), _places(settings), strict=True)
    )


def write_units(units: tuple[Unit, ...]) -> None:
    """Raises:
    SettingsError: they cannot be written.
    """
    try:
        for unit in units:
            make_directory(unit.file.parent, mode=0o755)
            write_durably(unit.file, unit.text.encode(), mode=0o644)
    except OSError as error:
        raise SettingsError(
            f"{error.filename} cannot be written: {error.strerror}.",
            hint="set TMI_OPS_HOME to a directory that you can write to, or use `--units none`",
        ) from None


def unit_files(settings: Settings) -> tuple[Path, ...]:
    """The files that `write_units` wrote for this environment."""
    return tuple(file for file in _places(settings) if file.is_file())


def _places(settings: Settings) -> list[Path]:
    """The file of each kind of unit."""
    return [settings.home / "units" / f"tmi-ops-{kind}-{settings.environment}.service" for kind in _KINDS]


def is_enabled(file: Path) -> bool:
    """Whether systemd has the unit, as a link to it or as a copy."""
    return os.path.lexists(SYSTEM_UNITS / file.name)


def render(template: str, site: Site) -> str:
    """Render a template of deploy/systemd for an environment at this site.

    Raises:
        SettingsError: systemd would misread a path.
    """
    for path in (site.program, site.directory, site.home, site.told_home, site.store):
        if path and _MISREAD.search(str(path)):
            raise SettingsError(
                f"{str(path)!r} has characters with a special meaning in a systemd unit.",
                hint="move it to a path without them, or use `--units none`",
            )
    return "".join(f"{line}\n" for line in _lines(template, site))


def _lines(template: str, site: Site) -> Iterator[str]:
    yield "# Written by `tmi-ops init`, which overwrites it when paths change. Make your changes with `systemctl edit`."
    # The first line says how the template is enabled.
    for line in template.splitlines()[1:]:
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            yield line.replace("%i", site.environment)
        elif name in ("Group", "StateDirectory", "StateDirectoryMode"):
            continue
        elif name == "Environment":
            home = f' "TMI_OPS_HOME={site.told_home}"' if site.told_home else ""
            yield f"Environment=TMI_ENV={site.environment}{home}"
        elif name == "ExecStart":
            yield f'ExecStart="{site.program}"{value.removeprefix(_PROGRAM)}'
        else:
            yield _replaced(site).get(name, line.replace("%i", site.environment))


def _replaced(site: Site) -> Mapping[str, str]:
    beside = [one for one in _TEMPORARY if any(path.is_relative_to(one) for path in _paths(site))]
    writable = " ".join(f'"{path}"' for path in (site.home, *([site.store] if site.store else []), *beside))
    return {
        "User": f"User={site.user}",
        "WorkingDirectory": f"WorkingDirectory={site.directory}",
        "ProtectSystem": f"ProtectSystem=strict\nReadWritePaths={writable}",
        # libpq and the AWS SDK read files in the account's home.
        "ProtectHome": "ProtectHome=read-only",
        "PrivateTmp": f"PrivateTmp={'no' if beside else 'yes'}",
    }


def _paths(site: Site) -> tuple[Path, ...]:
    return (site.program, site.directory, site.home, *site.seen)


def _text(kind: str, site: Site) -> str:
    template = files("tmi_ops.adoption") / "units" / f"tmi-ops-{kind}@.service"
    return render(template.read_text(encoding="utf-8"), site)


def _this_site(settings: Settings, directory: Path) -> Site:
    told = os.environ.get("TMI_OPS_HOME")
    return Site(
        environment=settings.environment,
        user=_account(),
        program=_program(),
        directory=directory.absolute(),
        home=settings.home,
        told_home=(directory / told).absolute() if told else None,
        store=settings.store.directory,
        seen=tuple(
            Path(value) for value in (*(settings.variables or {}).values(), sys.base_prefix) if value.startswith("/")
        ),
    )


def _account() -> str:
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # an account without a name, as containers have
        return str(number)


def _program() -> Path:
    """The program of the running installation, whatever PATH has first."""
    ours = Path(sys.prefix) / "bin" / "tmi-ops"
    found = ours if ours.exists() else Path(shutil.which("tmi-ops") or "")
    if not found.is_absolute():
        raise SettingsError(
            "The path of tmi-ops is unknown: it is not on PATH.",
            hint="install it (docs/install.md), or use `--units none`",
        )
    return found
