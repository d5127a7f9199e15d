"""Confirmation codes for recoveries launched from Dagster's page, which has no login: one use, one plan.

1. A launch without `confirm` only plans. The plan gets a name: a hash of the request and of everything it would do.
2. `tmi-ops recover code`, run as the account that runs recoveries, shows the plan of that name and prints a code.
3. A launch with the code plans again. If that plan has another name, nothing is done.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.private import make_directory, write_private

CODE_LASTS = timedelta(minutes=15)
PLAN_LASTS = timedelta(days=1)
LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # no characters that look alike
_CODES, _PLANS = "codes", "looked-at"
# 78 bits: a second plan of the same name cannot be found.
_NAME_LETTERS = 16
Content = TypeVar("Content", bound=BaseModel)


class LookedAt(BaseModel):
    """A plan as shown before it is confirmed; `texts`: what would be done, one line each."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    name: str
    job: str
    environment: str
    texts: tuple[str, ...] = Field(alias="words")
    ends: AwareDatetime


class _Code(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    plan: str
    ends: AwareDatetime


def name_plan(environment: str, job: str, asked: Mapping[str, object], actions: Sequence[str]) -> str:
    """The name of a plan: `7Q3K-...`. A different request or a different action gives a different name.

    Args:
        asked: the launch configuration without the confirmation, as JSON values.
        actions: what would be done, and to what.
    """
    said = json.dumps([environment, job, asked, list(actions)], sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(said.encode()).digest())
    letters = []
    for _ in range(_NAME_LETTERS):
        number, letter = divmod(number, len(LETTERS))
        letters.append(LETTERS[letter])
    return _grouped("".join(letters))


def remember_plan(home: Path, environment: str, job: str, name: str, words: Iterable[str], now: datetime) -> None:
    """Store a plan's text, so that `tmi-ops recover code` can show it."""
    plan = LookedAt(name=name, job=job, environment=environment, texts=tuple(words), ends=now + PLAN_LASTS)
    _write(home / _PLANS, name, plan, now)


def looked_at(home: Path, environment: str, job: str, name: str, now: datetime) -> LookedAt:
    """The plan of that name.

    Raises:
        SettingsError: there is no such plan; the hint names those there are.
    """
    known = _plans(home, environment, job, now)
    found = known.get(name.strip().upper())
    if found is None:
        names = (
            f"name one of {', '.join(known)}" if known else f"launch {job} without `confirm`; its metadata names a plan"
        )
        hours = PLAN_LASTS // timedelta(hours=1)
        said = f"No launch of {job} in {environment} made a plan {name!r} in the last {hours} hours."
        raise SettingsError(said if name else "No plan given.", hint=names)
    return found


def new_code(home: Path, plan: LookedAt, now: datetime) -> str:
    """A code that confirms one launch of this plan within `CODE_LASTS`. Only its hash is stored."""
    code = _grouped("".join(secrets.choice(LETTERS) for _ in range(8)))
    _write(home / _CODES, _hash(code, plan.environment, plan.job), _Code(plan=plan.name, ends=now + CODE_LASTS), now)
    return code


def use_code(home: Path, environment: str, job: str, code: str, now: datetime) -> str:
    """Use up a code; it is invalid afterwards, whatever the run does.

    Returns:
        The name of the plan that it confirms; see `require_plan`.

    Raises:
        SettingsError: it is unknown, used, expired, or for another job or environment.
    """
    file = home / _CODES / _hash(code, environment, job)
    found = _read(file, _Code)
    try:
        file.unlink()
    except OSError:
        found = None
    if found is None or found.ends < now:
        raise SettingsError(
            f"The run was not confirmed: the code {code!r} is wrong, used, expired, or not for {job} in {environment}."
            if code
            else "The run was not confirmed: it has no code.",
            hint=f"launch {job} without `confirm`, then run, as the account that runs the job: `tmi-ops recover code "
            f"{job} PLAN`, with the plan that the launch named",
            code=Code.NOT_CONFIRMED,
        )
    return found.plan


def require_plan(confirmed: str, plan: str, job: str) -> None:
    """Raises SettingsError: another plan was confirmed."""
    if confirmed != plan:
        raise SettingsError(
            f"The run was not confirmed: the code is for plan {confirmed}, but the plan is now {plan}. Either the "
            "request differs, or something has changed since.",
            hint=f"review the new plan and get a code for it: `tmi-ops recover code {job} {plan}`",
            code=Code.NOT_CONFIRMED,
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
    """None if it cannot be read."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _hash(code: str, environment: str, job: str) -> str:
    return hashlib.sha256(f"{code.strip().upper()} {environment} {job}".encode()).hexdigest()


def _grouped(letters: str) -> str:
    return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))
