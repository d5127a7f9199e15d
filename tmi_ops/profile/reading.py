"""TMI_OPS_PROFILE -> Profile: `tmi`, `none`, or a YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.errors import SettingsError, first_line
from tmi_ops.profile.cache_keys import KeyPattern, KeyPurpose
from tmi_ops.profile.facts import Name, Profile, Root, SqlCheck, Table, Tie
from tmi_ops.profile.tmi import TMI

VARIABLE = "TMI_OPS_PROFILE"
NONE = Profile(name="none")
_BUILT_IN = {profile.name: profile for profile in (TMI, NONE)}
_LONGEST_BYTES = 1_000_000
_DEEPEST = 20


class _CacheKeys(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pattern: str = Field(min_length=1, pattern=r"^[^*?\[\]\\]+\*?$")
    purpose: KeyPurpose
    longest_life: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    what: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    tables: tuple[Table, ...] = ()
    roots: dict[Name, Root] = {}
    ties: tuple[Tie, ...] = ()
    cache: tuple[_CacheKeys, ...] = ()
    checks: tuple[SqlCheck, ...] = ()


def read_profile(wanted: str | None, directory: Path) -> Profile:
    """The profile named `wanted`; TMI's if nothing is named. A relative path is relative to `directory`.

    Raises:
        SettingsError: there is no such profile, or the file is malformed.
    """
    if not wanted:
        return TMI
    if wanted in _BUILT_IN:
        return _BUILT_IN[wanted]
    if not wanted.endswith((".yaml", ".yml")):
        raise SettingsError(
            f"{VARIABLE} names an unknown profile: {wanted!r}.", hint="use tmi, none, or the path of a YAML file"
        )
    return _from_file(directory / wanted)


def _from_file(path: Path) -> Profile:
    try:
        said = _File.model_validate(_content(path) or {})
        return Profile(
            name=said.name or _name_of(path),
            tables=said.tables,
            roots=said.roots,
            ties=said.ties,
            cache=tuple(KeyPattern(one.pattern, one.purpose, one.longest_life, one.what) for one in said.cache),
            checks=said.checks,
        )
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or path.name}: {one['msg']}" for one in error.errors())
        raise SettingsError(f"The profile {path} is malformed: {wrong}.", hint="see docs/profiles.md") from None


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"The profile {path} cannot be read: {why}.", hint=f"correct {VARIABLE}") from None
    if len(data) > _LONGEST_BYTES:
        raise SettingsError(f"The profile {path} is larger than 1 MB.", hint=f"correct {VARIABLE}")
    import yaml  # takes 10 ms, which `wal push` does not need

    try:
        _require_plain(path, yaml.parse(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place is not None else ""
        raise SettingsError(f"The profile {path} is not YAML{where}.", hint="see docs/profiles.md") from None
    except ValueError as error:  # a date that does not exist, a number of thousands of digits
        raise SettingsError(
            f"The profile {path} holds a value that is not valid YAML: {first_line(error)}.",
            hint="quote it if it is text; see docs/profiles.md",
        ) from None


def _require_plain(path: Path, events: Iterable[Any]) -> None:
    """Refuse aliases, with which a few lines expand to gigabytes, and nesting deeper than any profile needs."""
    from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > _DEEPEST:
            what = "an alias" if isinstance(event, AliasEvent) else f"nesting deeper than {_DEEPEST} levels"
            raise SettingsError(
                f"The profile {path} has {what} at line {event.start_mark.line + 1}, which is not allowed.",
                hint="see docs/profiles.md",
            )


def _name_of(path: Path) -> str:
    return path.stem.lower().replace(" ", "-").replace(".", "-")
