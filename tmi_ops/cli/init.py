"""`tmi-ops init` and `tmi-ops uninit`: start and stop protecting a database."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from tmi_ops.cli.environment import logs_in_for, reporting
from tmi_ops.cli.options import dry_run_option, quiet_option, yes_option
from tmi_ops.cli.printed_commands import program_name
from tmi_ops.cli.terminal import err, out
from tmi_ops.errors import OpsError, SettingsError
from tmi_ops.settings import Purpose, Settings, env_file_names, environment_name, load_settings, read_variables
from tmi_ops.settings.sources import env_files, process_variables

if TYPE_CHECKING:
    from tmi_ops.adoption.steps import Step, Surroundings

SECRETS = {"POSTGRES_PASSWORD", "TMI_OPS_S3_SECRET_ACCESS_KEY"}
# Asked for if no setting names it; then the default. None: an answer is required.
QUESTIONS: Mapping[str, tuple[str, str | None]] = {
    "POSTGRES_HOST": ("Database host", "localhost"),
    "POSTGRES_DB": ("Database name", None),
    "POSTGRES_USER": ("Role that takes backups (needs REPLICATION and read access to all tables)", "postgres"),
    "POSTGRES_PASSWORD": ("Its password", ""),
    "TMI_OPS_S3_BUCKET": ("Bucket for backups", None),
    "TMI_OPS_S3_ENDPOINT_URL": ("URL of the S3 server (empty: AWS)", ""),
    "TMI_OPS_S3_ACCESS_KEY_ID": ("S3 access key (empty: use AWS's default credentials)", ""),
    "TMI_OPS_S3_SECRET_ACCESS_KEY": ("S3 secret key", ""),
}


@click.command()
@click.option(
    "--set",
    "assigned",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting to write to the .env file, such as POSTGRES_HOST=db.example.org; repeatable. Passwords and secret "
    "keys are asked for, or taken from environment variables.",
)
@click.option("--keys/--no-keys", default=True, help="Create keys that encrypt and sign backups (default), or do not.")
@click.option(
    "--roles/--no-roles",
    default=True,
    help="Create roles for backups and for statistics (default), or do everything as POSTGRES_USER.",
)
@click.option(
    "--units",
    type=click.Choice(["systemd", "none"]),
    default="systemd",
    show_default=True,
    help="Write units for the services to TMI_OPS_HOME; you enable them.",
)
@dry_run_option
@click.option(
    "--wait",
    "patience_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to retry a connection that the server refuses. [default: 600 at a terminal, else 0]",
)
@yes_option
@quiet_option
def init(
    assigned: tuple[str, ...],
    keys: bool,
    roles: bool,
    units: str,
    dry_run: bool,
    patience_s: float | None,
    yes: bool,
    quiet: bool,
) -> int:
    """Set up backups, WAL archiving and drills for the database of TMI_ENV.

    Asks for missing settings and writes them to .env.<environment> (mode 0600). Then it connects, creates the bucket
    and the keys, takes a base backup and a logical backup, archives WAL, verifies the backup, runs a drill and writes
    systemd units. All steps are shown first. Existing keys, backups and settings are kept; after an error or Ctrl-C,
    run the same command again to continue.

    Exit codes: 0 protected and verified, 1 all steps are done but the newest state cannot be recovered (the reason is
    shown), 2 a step failed; completed steps are kept.
    """
    from tmi_ops.adoption.execution import Adoption
    from tmi_ops.adoption.steps import outstanding, plan_adoption

    environment = _own_environment()
    env_file = Path(env_file_names(environment)[-1])
    given = {**_secrets_of_the_process(env_file, environment), **_assigned(assigned)}
    given |= _asked({**read_variables(), **given}, ask=sys.stdin.isatty() and not yes and not dry_run)
    read = _reader(given)
    wanted = Wanted(keys=keys, roles=roles, units=units == "systemd")
    steps = plan_adoption(_look(read, given, env_file, wanted))
    _show(environment, steps)
    if dry_run:
        return 0
    to_do = outstanding(steps)
    if not yes and to_do:
        click.confirm("Continue?", abort=True, err=True)
    patience = patience_s if patience_s is not None else (600.0 if sys.stdin.isatty() else 0.0)
    for step in to_do:
        with reporting(quiet) as report:
            came = Adoption(read, lambda: {**read_variables(), **given}, env_file, given, patience, report).do(
                step.name
            )
        out.say(f"[green]✓[/] {step.name:<15} {came}", hang=18)
    return _show_next(read, environment, units=units == "systemd")


@dataclass(frozen=True)
class Wanted:
    """What the command line says is to be made."""

    keys: bool
    roles: bool
    units: bool


def _reader(given: Mapping[str, str]) -> Callable[[Purpose | None], Settings]:
    """Reads settings as they will be once the file is written."""
    return lambda purpose: load_settings({**os.environ, **given}, purpose=purpose)


def _assigned(words: Sequence[str]) -> dict[str, str]:
    from tmi_ops.settings.names import unread_names

    given = {}
    for one in words:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{one!r} is not NAME=VALUE.", param_hint="--set")
        given[name] = value
    for name in given:
        if _is_secret(name):
            raise click.BadParameter(f"{name} would show in the process list; export it instead.", param_hint="--set")
    for unread in unread_names(given):
        raise click.BadParameter(unread.describe(), param_hint="--set")
    return given


def _is_secret(name: str) -> bool:
    return name in SECRETS or name.endswith(("_PASSWORD", "_SECRET_ACCESS_KEY"))


def _secrets_of_the_process(env_file: Path, environment: str) -> dict[str, str]:
    """Secrets that the services will need and that no file has yet."""
    written = env_files(env_file.parent, environment)
    return {name: value for name, value in process_variables(None).items() if name in SECRETS and name not in written}


def _own_environment() -> str:
    """Raises SettingsError: this is a further database of a cluster, which shares keys, slot and base backups."""
    name = environment_name()
    environment, beside, _ = name.partition("/")
    if beside:
        raise SettingsError(
            f"{name} is a database in the cluster of {environment}; init and uninit apply to the whole cluster.",
            hint=f"run `tmi-ops -e {environment} init` or `tmi-ops -e {environment} uninit`; to back up this database "
            f"run `tmi-ops -e {name} backup logical --verify`",
        )
    return environment


def _asked(known: Mapping[str, str], *, ask: bool) -> dict[str, str]:
    """Ask for the settings that are missing.

    Raises:
        OpsError: a required setting is missing, and nobody can be asked.
    """
    answers: dict[str, str] = {}
    if "TMI_DATABASE_URL" in known:
        known = {**known, **{name: "" for name in QUESTIONS if name.startswith("POSTGRES_")}}
    if "TMI_OPS_STORE_DIRECTORY" in known:
        known = {**known, **{name: "" for name in QUESTIONS if name.startswith("TMI_OPS_S3_")}}
    for name, (question, otherwise) in QUESTIONS.items():
        if name in known or (name == "TMI_OPS_S3_SECRET_ACCESS_KEY" and not _is_needed(known, answers)):
            continue
        if ask:
            answer = click.prompt(
                question, default=otherwise, hide_input=name in SECRETS, show_default=bool(otherwise), err=True
            )
            if answer:
                answers[name] = answer
        elif otherwise is None:
            raise SettingsError(f"{name} ({question.lower()}) is not set.", hint=f"give it with `--set {name}=...`")
    return answers


def _is_needed(known: Mapping[str, str], answers: Mapping[str, str]) -> bool:
    return bool(known.get("TMI_OPS_S3_ACCESS_KEY_ID") or answers.get("TMI_OPS_S3_ACCESS_KEY_ID"))


def _look(
    read: Callable[[Purpose | None], Settings],
    given: Mapping[str, str],
    env_file: Path,
    wanted: Wanted,
) -> Surroundings:
    """What exists already; what cannot be read yet counts as missing."""
    from tmi_ops.adoption.execution import check_connection
    from tmi_ops.adoption.roles import are_named
    from tmi_ops.adoption.services import units_for
    from tmi_ops.adoption.state import read_protection
    from tmi_ops.adoption.steps import Surroundings
    from tmi_ops.store.objects import open_store

    settings = read(None)
    cluster: str | None = None
    with suppress(OpsError):
        cluster = check_connection(read)
    bucket, protection = False, None
    with suppress(OpsError):
        store = open_store(settings.store, settings.environment, hurried=True)
        protection = read_protection(settings, store, cluster) if cluster else None
        bucket = True
    variables = {**read_variables(), **given}
    return Surroundings(
        given=tuple(given),
        env_file=str(env_file),
        connects=cluster is not None,
        bucket=bucket,
        has_keys=bool(settings.store.age_recipients or settings.store.signing_key_file),
        wants_keys=wanted.keys,
        protection=protection,
        wants_roles=wanted.roles and _may_create_roles(read, variables),
        has_roles=are_named(variables),
        wants_units=wanted.units,
        has_units=wanted.units and all(one.written for one in units_for(settings, Path.cwd())),
    )


def _may_create_roles(read: Callable[[Purpose | None], Settings], variables: Mapping[str, str]) -> bool:
    """A server that cannot be asked yet may let us; one that will not is told so, and the step is left out."""
    from tmi_ops.adoption.roles import are_named, look_at_roles

    if are_named(variables):
        return True
    try:
        roles = look_at_roles(read(Purpose.OWNER), variables)
    except OpsError:
        return True
    if roles.refused:
        err.say(f"No roles are created: {escape(roles.refused)}. POSTGRES_USER does everything.")
    return not roles.refused


def _show(environment: str, steps: Sequence[Step]) -> None:
    out.print(f"[bold]Protect {environment}[/]")
    for number, step in enumerate(steps, 1):
        mark = f"[green]✓ {step.done}[/]" if step.done else step.says
        out.say(f"  {number:>2}. {step.name:<15} {mark}", hang=22)


def _show_next(read: Callable[[Purpose | None], Settings], environment: str, *, units: bool) -> int:
    """Show up to when the store is verified now, whatever the steps reported."""
    from tmi_ops.objectives.reading import read_recoverability
    from tmi_ops.store.objects import open_store

    settings = read(Purpose.BACKUP)
    reach = read_recoverability(settings, open_store(settings.store, settings.environment)).verified
    name, prefix = program_name(), "" if environment == "development" else f"-e {environment} "
    amiss = "" if reach is None else reach.broken or (f"{reach.missing} is missing" if reach.missing else "")
    if reach is None or amiss:
        what = f"Verified only up to {reach.at:%Y-%m-%d %H:%M:%S} UTC: {amiss}" if reach else "Nothing is verified"
        out.say(f"[yellow]{escape(what)}.[/] Next: {name} {prefix}status", hang=2)
        return 1
    out.print(f"[bold]Protected and verified up to {reach.at:%Y-%m-%d %H:%M:%S} UTC.[/] Next:")
    for words, why in (
        ("wal stream", "archives WAL while it runs; run it as a service"),
        ("status", "shows RPO, RTO, the recovery window, and what to do"),
        ("doctor", "shows what is missing for daily operation"),
    ):
        out.say(f"  {name} {prefix}{words:<11} [dim]{why}[/]", hang=4)
    if units:
        _show_units(settings)
    out.say("  Services, schedules and Dagster: deploy/README.md", hang=4)
    return 0


def _show_units(settings: Settings) -> None:
    """The command that enables each unit, and the settings that only this shell has: services do not see them."""
    from tmi_ops.adoption.services import units_for
    from tmi_ops.settings.names import is_known

    for unit in units_for(settings, Path.cwd()):
        out.say(f"  systemd: {unit.why}", hang=4)
        out.print(f"    {escape(unit.command(as_root=os.geteuid() == 0))}", soft_wrap=True)
    written = env_files(Path.cwd(), settings.environment)
    alone = [
        name
        for name in sorted(process_variables(None))
        if (is_known(name) or name.startswith("AWS_"))
        and name not in written
        and name not in ("TMI_ENV", "TMI_OPS_HOME")
    ]
    if alone:
        file = env_file_names(settings.environment)[-1]
        out.say(f"  [yellow]Only this shell sets {', '.join(alone)}.[/] Services need it in {file}.", hang=4)


@logs_in_for(Purpose.OWNER)
@click.command()
@yes_option
def uninit(yes: bool) -> int:
    """Remove what `init` created: replication slot, heartbeat schema, roles, and the units of this machine.

    Backups are kept in the store; keys and settings are kept on this machine. Stop receivers first.
    """
    from tmi_ops.adoption.leaving import leave, plan_leaving
    from tmi_ops.adoption.roles import forget_roles

    environment = _own_environment()
    settings = load_settings(purpose=Purpose.OWNER)
    plan = plan_leaving(settings)
    if not plan:
        out.print(f"Nothing to remove from {settings.postgres.describe()}.")
        return 0
    for one in plan:
        out.say(f"  {one.says}", hang=4)
    out.print("Backups are kept in the store. No more WAL is archived: you can recover to what is archived now.")
    if not yes:
        typed = click.prompt(
            f"Type the environment's name ({environment}) to continue", default="", show_default=False, err=True
        )
        if typed != environment:
            raise click.Abort
    leave(settings, plan)
    forget_roles(Path(env_file_names(environment)[-1]), [one.name for one in plan if one.kind == "role"])
    err.print("Done. Roles created by `tmi-ops roles apply` are not dropped; drop them if you do not need them.")
    return 0
