"""`tmi-ops.toml`: several environments, and several databases of one cluster, in one file.

    [defaults]                                    # for each environment that does not override them
    TMI_OPS_S3_BUCKET = "backups"

    [environments.production]                     # chosen as `-e production`
    POSTGRES_HOST = "db.example.com"
    POSTGRES_PASSWORD_FILE = "/run/secrets/production"

    [environments.production.databases.billing]   # of the same cluster; chosen as `-e production/billing`
    TMI_OPS_PROFILE = "none"

Settings have the names of the variables. A secret is given by NAME_FILE, a file that contains it, or NAME_ENV, a
variable of the process. The environment's `.env` files in the same directory add to this file and override it.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError, first_line
from tmi_ops.settings.facts import full_name
from tmi_ops.settings.names import is_known, nearest_name, refuse_secret
from tmi_ops.settings.sources import env_files

FILE = "tmi-ops.toml"
VARIABLE = "TMI_OPS_CONFIG"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
_LONGEST_BYTES = 10_000_000
# The same for all databases of a cluster.
_OF_THE_CLUSTER = ("POSTGRES_HOST", "POSTGRES_PORT", "TMI_DATABASE_URL", "TMI_OPS_S3_", "TMI_OPS_STORE_")
_OF_THE_PROCESS = ("TMI_ENV", VARIABLE, "TMI_OPS_RUN_ID", "TMI_OPS_UI_HOSTS")
_PAGE = "see docs/fleet.md"


@dataclass(frozen=True)
class Declared:
    """A protected database, as declared.

    Attributes:
        environment: the environment whose part of the store, base backups and WAL it shares.
        database: its name, if it is a further database; None: it is the environment's own.
        file: where it is declared, for messages; relative paths start from its directory.
        layers: variables and references as written: the environment's, then the database's.
    """

    environment: str
    database: str | None
    file: Path
    layers: tuple[Mapping[str, str], ...]

    @property
    def name(self) -> str:
        """`production` or `production/billing`."""
        return full_name(self.environment, self.database)

    @property
    def directory(self) -> Path:
        return self.file.parent

    def of_the_cluster(self) -> Declared:
        """The environment's own database."""
        return replace(self, database=None, layers=self.layers[:1])

    def values(self, process: Mapping[str, str], *, secrets: bool = True) -> dict[str, str]:
        """Variables and their values.

        Args:
            process: the variables that NAME_ENV refers to.
            secrets: follow references; False leaves out what they refer to.

        Raises:
            SettingsError: a file cannot be read, or a variable is not set.
        """
        values: dict[str, str] = {}
        names = [self.environment, self.name] if self.database else [self.environment]
        for layer, name in zip(self.layers, names, strict=True):
            values |= dict(self._resolved(layer, process, secrets=secrets))
            values |= env_files(self.directory, name)
        return values

    def _resolved(
        self, layer: Mapping[str, str], process: Mapping[str, str], *, secrets: bool
    ) -> Iterator[tuple[str, str]]:
        for name, said in layer.items():
            variable, how = reference_of(name)
            if how is None:
                yield name, str(self.directory / said) if name.endswith("_FILE") else said
            elif secrets:
                yield variable, self._content(said) if how == "file" else self._variable(name, said, process)

    def _content(self, path: str) -> str:
        try:
            return (self.directory / path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SettingsError(
                f"{path}, which {self.file.name} names for {self.name}, cannot be read: {reason}.",
                hint="make the file readable for this account, or correct the path",
                code=Code.SETTINGS_FILE,
            ) from None

    def _variable(self, name: str, variable: str, process: Mapping[str, str]) -> str:
        if variable not in process:
            raise SettingsError(
                f"The variable {variable} is not set; {self.file.name} names it as {name} of {self.name}.",
                hint=f"set {variable} in the environment of this process, or name another one",
            )
        return process[variable]


@dataclass(frozen=True)
class Fleet:
    """What a file declares, by name, in the file's order."""

    file: Path
    members: Mapping[str, Declared]

    def choose(self, name: str | None) -> Declared:
        """The environment or database of this name.

        Args:
            name: as given by `-e` or TMI_ENV; None: neither was given.

        Raises:
            SettingsError: there is none of this name, or there are several and no name. The error lists them.
        """
        if name is None and len(self.members) == 1:
            return next(iter(self.members.values()))
        if name is not None and name in self.members:
            return self.members[name]
        there = _listed(self.members)
        if name is None:
            raise SettingsError(
                f"{self.file.name} has {len(self.members)} environments and databases: {there}.",
                hint="choose one with `tmi-ops -e NAME ...` or TMI_ENV=NAME; `tmi-ops status --all` shows all of them",
                code=Code.ENVIRONMENT,
            )
        near = difflib.get_close_matches(name, self.members, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SettingsError(
            f"{self.file.name} does not have {name!r}.{hint}",
            hint=f"choose one of {there} with `-e` or TMI_ENV",
            code=Code.ENVIRONMENT,
        )


def find_fleet(process: Mapping[str, str], directory: Path) -> Fleet | None:
    """The file that TMI_OPS_CONFIG names, or `tmi-ops.toml` in the directory; None: there is none.

    Raises:
        SettingsError: the named file does not exist, or the file is malformed.
    """
    named = process.get(VARIABLE)
    file = directory / named if named else directory / FILE
    try:
        state = file.stat()
    except OSError as error:
        if not named:
            return None
        raise SettingsError(
            f"{VARIABLE} names {file}, which cannot be read: {error.strerror}.",
            hint=f"correct {VARIABLE}",
            code=Code.SETTINGS_FILE,
        ) from None
    return _read(file.absolute(), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _read(file: Path, _changed_ns: int, _size: int) -> Fleet:
    """Cached, because a daemon reads it at every tick of every sensor."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_LONGEST_BYTES).decode()
        return fleet_of(tomllib.loads(text), file)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}.",
            hint="make it readable for this account",
            code=Code.SETTINGS_FILE,
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        why = first_line(error) if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8 text"
        raise SettingsError(f"{file} is not valid TOML: {why}.", hint=_PAGE, code=Code.SETTINGS_FILE) from None


def fleet_of(said: Mapping[str, Any], file: Path) -> Fleet:
    """Raises SettingsError: the file has something that is not allowed in it."""
    _only(said, ("defaults", "environments"), "the file", file)
    defaults = _settings(_table(said.get("defaults", {}), "defaults", file), "defaults", file)
    members: dict[str, Declared] = {}
    for environment, table in _table(said.get("environments", {}), "environments", file).items():
        for one in _declared(environment, _table(table, environment, file), defaults, file):
            members[one.name] = one
    if not members:
        raise SettingsError(f"{file.name} has no environment.", hint=f"add one; {_PAGE}")
    return Fleet(file, members)


def declare(name: str, settings: Mapping[str, Any], file: Path) -> Declared:
    """One environment, declared elsewhere than in tmi-ops.toml.

    Raises:
        SettingsError: as `fleet_of`.
    """
    _named(name, file)
    return Declared(name, None, file, (_settings(settings, name, file),))


def reference_of(name: str) -> tuple[str, Literal["file", "env"] | None]:
    """The variable that a name refers to, and where its value is; None: the name is the variable itself."""
    if not is_known(name) or name.startswith("TMI_OPS_ROLE_"):
        for suffix, how in (("_FILE", "file"), ("_ENV", "env")):
            if name.endswith(suffix) and is_known(name.removesuffix(suffix)):
                return name.removesuffix(suffix), how  # type: ignore[return-value]
    return name, None


def _declared(
    environment: str, table: Mapping[str, Any], defaults: Mapping[str, str], file: Path
) -> Iterator[Declared]:
    _named(environment, file)
    own = {name: value for name, value in table.items() if name != "databases"}
    said = _settings(own, environment, file)
    told = {reference_of(name)[0] for name in said}
    settings = {**{name: value for name, value in defaults.items() if reference_of(name)[0] not in told}, **said}
    yield Declared(environment, None, file, (settings,))
    seen: dict[str, str] = {}
    for database, beside in _table(table.get("databases", {}), f"{environment}.databases", file).items():
        _named(database, file)
        name = full_name(environment, database)
        layer = {"POSTGRES_DB": database, **_settings(_table(beside, name, file), name, file)}
        for variable in layer:
            if variable.startswith(_OF_THE_CLUSTER):
                raise SettingsError(
                    f"{file.name} sets {variable} for {name}, a database in the cluster of {environment}; the "
                    "databases of a cluster share its address and its place in the store.",
                    hint=f"set it for {environment}, or make {database} an environment of its own",
                )
        twin = seen.setdefault(layer["POSTGRES_DB"], name)
        if twin != name or layer["POSTGRES_DB"] == settings.get("POSTGRES_DB"):
            other = twin if twin != name else environment
            raise SettingsError(
                f"{file.name} has the database {layer['POSTGRES_DB']} twice: as {other} and as {name}.",
                hint="remove one of them",
            )
        yield Declared(environment, database, file, (settings, layer))


def _settings(table: Mapping[str, Any], whose: str, file: Path) -> dict[str, str]:
    """Raises SettingsError: a name or a value is not a setting, or a secret is in the clear."""
    found: dict[str, str] = {}
    said: dict[str, str] = {}
    for name, value in table.items():
        variable, how = reference_of(name)
        if not is_known(variable) or variable in _OF_THE_PROCESS:
            near = nearest_name(name)
            hint = f" Did you mean {near}?" if near and near not in _OF_THE_PROCESS else ""
            raise SettingsError(f"{file.name} sets {name} for {whose}, which is not a setting.{hint}", hint=_PAGE)
        if variable in said:
            raise SettingsError(
                f"{file.name} sets both {said[variable]} and {name} for {whose}.", hint="remove one of them"
            )
        said[variable] = name
        found[name] = _text(name, value, whose, file)
        if how is None:
            refuse_secret(name, found[name], f"{file.name} ({whose})")
    return found


def _text(name: str, value: Any, whose: str, file: Path) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    raise SettingsError(
        f"{name} of {whose} in {file.name} is not a string, a number, true, false or a list of strings.",
        hint=f'write it as {name} = "..."',
    )


def _table(value: Any, name: str, file: Path) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise SettingsError(f"{name} in {file.name} is not a table.", hint=_PAGE)


def _only(said: Mapping[str, Any], known: tuple[str, ...], where: str, file: Path) -> None:
    strange = next((name for name in said if name not in known), None)
    if strange is not None:
        raise SettingsError(
            f"{strange} is not allowed in {where} {file.name}.",
            hint=f"put settings into [defaults] or [environments.NAME]; {_PAGE}",
        )


def _named(name: str, file: Path) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} in {file.name} is not a valid name.",
            hint="use letters, digits and single underscores between them, and start with a letter",
        )


def _listed(names: Mapping[str, object]) -> str:
    shown = list(names)[:20]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
