"""`tmi-ops keys`: the keys that encrypt backups and sign records about them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from tmi_ops.cli.options import json_option, yes_option
from tmi_ops.cli.terminal import out
from tmi_ops.settings import load_settings

if TYPE_CHECKING:
    from tmi_ops.store.trust import Role, Trust

ROLE_CHOICES = ("writer", "prover", "pruner")


@click.group()
def keys() -> None:
    """Manage the keys that encrypt backups (age) and sign records about them (Ed25519, minisign format).

    Hosts that take backups need the age public key and a secret signing key. Hosts that restore need the age private
    key. Every host needs the public signing keys. Which key signs what: docs/security.md.
    """


@keys.command()
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Directory of the new keys. [default: keys in TMI_OPS_HOME]"
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLE_CHOICES),
    help="Create a signing key for this role only; repeatable. Default: one key for all roles.",
)
def init(directory: Path | None, roles: tuple[Role, ...]) -> int:
    """Create age keys and signing keys that only you can read, and a recovery sheet to print."""
    from tmi_ops.store.keys import make_keys
    from tmi_ops.store.recovery_sheet import write_sheet

    settings, now = load_settings(), datetime.now(UTC)
    made = make_keys(directory or settings.home / "keys", settings.environment, tuple(dict.fromkeys(roles)), now)
    sheet = write_sheet(made, settings.environment, settings.store, now)
    lines = [
        f"Created in {made.directory}. On hosts that take backups, set",
        f"  TMI_OPS_AGE_RECIPIENTS={made.recipient}",
        *(f"  TMI_OPS_SIGNING_KEY_FILE={file}   # {' and '.join(held)}" for held, file in made.signing),
        "on hosts that restore and verify",
        f"  TMI_OPS_AGE_IDENTITY_FILE={made.identity_file}",
        "and on every host",
        f"  TMI_OPS_TRUSTED_KEYS={made.trusted_file}",
        "",
        f"Print {sheet}, lock the paper away, then delete the file.",
        "To review and sign what is in the store already: `tmi-ops keys sign`.",
    ]
    out.say(Text("\n".join(lines)))
    return 0


@keys.command()
@json_option
def show(as_json: bool) -> int:
    """Show the public keys in use on this host. Exit code 1 if they do not match."""
    from tmi_ops.store.keys import key_facts

    settings = load_settings()
    facts = key_facts(settings.store, settings.environment)
    if as_json:
        click.echo(json.dumps(facts.as_json(), indent=2))
    else:
        out.say(Text("\n".join(facts.lines())))
    return 1 if facts.problems else 0


@keys.command()
@click.argument("which", type=click.Choice(("signing", "age")))
@click.option(
    "--record/--no-record",
    default=True,
    help="Record in the store what the old signing key has signed (default), so that nobody who steals it later can "
    "backdate a signature.",
)
@yes_option
def rotate(which: str, record: bool, yes: bool) -> int:
    """Create a new key and retire the old one. What the old one signed or encrypted remains valid."""
    from tmi_ops.errors import SettingsError
    from tmi_ops.store.keys import add_age_identity, rotate_signing_key
    from tmi_ops.store.trust import read_trust, trusted_entry

    if not yes:
        click.confirm("Replace the key?", abort=True)
    settings = load_settings()
    store = settings.store
    if which == "age":
        if store.age_identity_file is None:
            raise SettingsError(
                "TMI_OPS_AGE_IDENTITY_FILE is not set.",
                hint="run this on the host that has the private key, or create keys with `tmi-ops keys init`",
            )
        recipient = add_age_identity(store.age_identity_file)
        lines = [
            f"Added to {store.age_identity_file}; the old keys in it still decrypt old backups.",
            "On hosts that take backups, set",
            f"  TMI_OPS_AGE_RECIPIENTS={recipient}",
            "Print a new recovery sheet: `tmi-ops keys sheet`.",
        ]
    else:
        if store.signing_key_file is None:
            raise SettingsError("TMI_OPS_SIGNING_KEY_FILE is not set.", hint="create a key with `tmi-ops keys init`")
        trust = read_trust(settings.environment, store.signing_key_file, store.trusted_keys)
        signed = _recorded(trust) if record and trust.is_pinned and trust.signing else None
        done = rotate_signing_key(store.signing_key_file, trust, store.trusted_keys, datetime.now(UTC), signed)
        words = [trusted_entry(one) for one in done.trusted]
        where = f"every other host ({done.trusted_file} here has it already)" if done.trusted_file else "every host"
        lines = [
            f"{done.file} is the new key; {done.retired_file} is the old one, which signs nothing any more.",
            f"Before it reads what the new key signs, {where} needs in TMI_OPS_TRUSTED_KEYS:",
            *(f"  {word}" for word in words),
            "If the old key was stolen, leave it out and sign again what you know to be good: `tmi-ops keys sign`.",
        ]
    out.say(Text("\n".join(lines)))
    return 0


def _recorded(trust: Trust) -> str | None:
    from tmi_ops.cli.environment import open_environment
    from tmi_ops.errors import StoreError
    from tmi_ops.store.retired import keep_record

    if trust.signing is None:
        return None
    try:
        return keep_record(open_environment()[1], trust.signing.public)
    except StoreError as error:
        raise StoreError(
            f"What the old key has signed could not be recorded: {error.message}",
            detail="The old key is still in use.",
            hint="give access to the store, or use `--no-record`; then someone who steals the old key later can "
            "backdate signatures",
        ) from error


@keys.command()
def sheet() -> int:
    """Print the recovery sheet. It contains the age private keys: send it to a printer, not to a file."""
    from tmi_ops.store.encryption import read_identities
    from tmi_ops.store.recovery_sheet import recovery_sheet
    from tmi_ops.store.trust import read_trust

    settings = load_settings()
    store = settings.store
    private = [str(one) for one in read_identities(store.age_identity_file)]
    trusted = read_trust(settings.environment, None, store.trusted_keys).trusted
    click.echo(recovery_sheet(settings.environment, store, private, trusted, datetime.now(UTC)), nl=False)
    return 0


@keys.command()
@click.argument("beginning", default="")
@yes_option
def sign(beginning: str, yes: bool) -> int:
    """Sign objects in the store that are unsigned or signed by an untrusted key. You vouch for them.

    Signs only what this host's key may sign. BEGINNING: only objects whose key starts with it, such as
    `logical/20261127T`.
    """
    from tmi_ops.cli.environment import open_environment
    from tmi_ops.store.vouching import sign_documents, unsigned_documents

    _, store = open_environment()
    found = unsigned_documents(store, beginning)
    for one in found:
        out.say(Text(f"  {one.key}: {one.why}"))
    if not found:
        out.print("Everything that this host's key may sign is signed.")
        return 0
    if not yes:
        click.confirm(f"Are you sure that your hosts wrote these {len(found)} objects? Sign them?", abort=True)
    sign_documents(store, found)
    out.print(f"Signed {len(found)} documents.")
    return 0
