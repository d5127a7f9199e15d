"""Who says yes to a recovery that is launched from Dagster's page, which has no login: a code, good once, for one plan.

1. A launch without a yes looks only. Its plan gets a name, made of all that was asked for and all that would be done.
2. The command of the account that runs recoveries shows the plan of that name, and prints a code for it.
3. A launch with the code plans anew. Where that plan has another name, nothing is done.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from tmi_ops.errors import SettingsError
from tmi_ops.private import make_directory, write_private

CODE_LASTS = timedelta(minutes=15)
PLAN_LASTS = timedelta(days=1)
LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # none that is read as another one
_CODES, _PLANS = "codes", "looked-at"
# 78 bits: nobody finds another plan of the same name.
_NAME_LETTERS = 16
Content = TypeVar("Content", bound=BaseModel)


class LookedAt(BaseModel):
    """A plan as a person sees it before saying yes; `words`: what would be done, a line each."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    job: str
    environment: str
    words: tuple[str, ...]
    ends: AwareDatetime


class _Code(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    plan: str
    ends: AwareDatetime


def name_plan(environment: str, job: str, asked: Mapping[str, object], deeds: Sequence[str]) -> str:
    """The name of a plan: `7Q3K-...`. What would be asked or done otherwise has another one.

    Args:
        asked: everything that the launchpad said but the yes; JSON can hold it.
        deeds: what would be done, and to what.
    """
    said = json.dumps([environment, job, asked, list(deeds)], sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(said.encode()).digest())
    letters = []
    for _ in range(_NAME_LETTERS):
        number, letter = divmod(number, len(LETTERS))
        letters.append(LETTERS[letter])
    return _grouped("".join(letters))


def remember_plan(home: Path, environment: str, job: str, name: str, words: Iterable[str], now: datetime) -> None:
    """Keep what a plan says, so that the command can show it to who is to say yes."""
    plan = LookedAt(name=name, job=job, environment=environment, words=tuple(words), ends=now + PLAN_LASTS)
    _write(home / _PLANS, name, plan, now)


def looked_at(home: Path, environment: str, job: str, name: str, now: datetime) -> LookedAt:
    """The plan of that name.

    Raises:
        SettingsError: nobody looked at one lately; the message names those that somebody did.
    """
    known = _plans(home, environment, job, now)
    found = known.get(name.strip().upper())
    if found is None:
        names = (
            f"name one of {', '.join(known)}" if known else f"launch {job} without `confirm`: its metadata names one"
        )
        said = f"No plan {name!r} of {job} in {environment} was looked at lately." if name else "Which plan?"
        raise SettingsError(said, hint=names)
    return found


def new_code(home: Path, plan: LookedAt, now: datetime) -> str:
    """A code that says yes to one launch of this plan within `CODE_LASTS`. Only its hash is kept."""
    code = _grouped("".join(secrets.choice(LETTERS) for _ in range(8)))
    _write(home / _CODES, _hash(code, plan.environment, plan.job), _Code(plan=plan.name, ends=now + CODE_LASTS), now)
    return code


def use_code(home: Path, environment: str, job: str, code: str, now: datetime) -> str:
    """Take the yes of a code; it is good for nothing afterwards, whatever becomes of the run.

    Returns:
        The name of the plan that it says yes to; see `require_plan`.

    Raises:
        SettingsError: it is none, was used, has ended, or is for another job or environment.
    """
    file = home / _CODES / _hash(code, environment, job)
    found = _read(file, _Code)
    try:
        file.unlink()
    except OSError:
        found = None
    if found is None or found.ends < now:
        raise SettingsError(
            f"The run was not confirmed: {code!r} is no code for {job} of {environment}, was used, or has ended."
            if code
            else "The run was not confirmed: it has no code.",
            hint=f"launch {job} without `confirm`; then, as the account that runs it: `tmi-ops recover code {job} "
            "PLAN`, with the plan that the launch named",
        )
    return found.plan


def require_plan(confirmed: str, plan: str, job: str) -> None:
    """Raises SettingsError: the yes was given to another plan."""
    if confirmed != plan:
        raise SettingsError(
            f"The run was not confirmed: the code says yes to the plan {confirmed}, and this would be {plan}. Either "
            "something else was asked for, or something changed since.",
            hint=f"look at this one and say yes to it: `tmi-ops recover code {job} {plan}`",
        )


def _plans(home: Path, environment: str, job: str, now: datetime) -> dict[str, LookedAt]:
    directory = home / _PLANS
    files = sorted(directory.iterdir()) if directory.is_dir() else []
    found = (_read(file, LookedAt) for file in files)
    return {
        one.name: one for one in found if one and one.ends >= now and (one.environment, one.job) == (environment, job)
    }


def _write(directory: Path, name: str, content: LookedAt | _Code, now: datetime) -> None:
    make_directory(directory)
    for old in directory.iterdir():
        kept = _read(old, _Ends)
        if kept is None or kept.ends < now:
            old.unlink(missing_ok=True)
    write_private(directory / name, content.model_dump_json())


class _Ends(BaseModel):
    ends: AwareDatetime


def _read(file: Path, kind: type[Content]) -> Content | None:
    """None, where there is nothing that could be read."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _hash(code: str, environment: str, job: str) -> str:
    return hashlib.sha256(f"{code.strip().upper()} {environment} {job}".encode()).hexdigest()


def _grouped(letters: str) -> str:
    return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))
