"""Users and groups with what hangs on them: tokens, credentials, identities, preferences, quotas."""

from __future__ import annotations

import base64
import unicodedata

from tmi_ops.stack.dataset.chance import SECONDS_A_DAY
from tmi_ops.stack.dataset.vocabulary import ORGANISATIONS, PARTS, names
from tmi_ops.stack.dataset.world import Row, Rows, User, World, as_json, slug

FIRST_NAMES, LAST_NAMES = names("first_names"), names("last_names")
PROVIDERS = ("google", "github", "microsoft", "okta", "tmi")
CONTENT_PROVIDERS = ("google_workspace", "microsoft_graph", "confluence")
# A quota is kept for who needs another than the default.
USERS_TO_ONE_WITH_QUOTAS = 12
GROUPS_TO_ONE_WITH_A_GROUP = 5
CLIENTS = ("tmi-ux", "tmi-cli", "tmi-tf-wh")


def add_users(world: World, rows: Rows, count: int) -> None:
    """`count` users, each with the rows TMI keeps of one."""
    for number in range(count):
        user = _new_user(world, number)
        world.users.append(user)
        _add_user(world, rows, user)
        _add_tokens(world, rows, user)
        _add_preferences(world, rows, user)
        if number % USERS_TO_ONE_WITH_QUOTAS == 0:
            _add_quotas(world, rows, user)


def add_groups(world: World, rows: Rows, count: int) -> None:
    """`count` groups with members; some hold another group, as TMI nests one level."""
    chance, calendar = world.chance, world.calendar
    for number in range(count):
        group = chance.uuid()
        part = chance.pick(PARTS)
        first_used = calendar.moment()
        rows["groups"].append(
            {
                "internal_uuid": group,
                "provider": chance.pick(PROVIDERS),
                "group_name": f"{slug(part)}-{chance.pick(('engineers', 'reviewers', 'owners', 'auditors'))}-{number}",
                "name": f"{part} {chance.pick(('Engineers', 'Reviewers', 'Owners', 'Auditors'))}",
                "description": world.prose.sentences(chance, "system", 1, part) if chance.likely(0.8) else None,
                "first_used": calendar.stamp(first_used),
                "last_used": calendar.stamp(calendar.later(first_used, 200)),
                "usage_count": chance.span(1, 900),
            }
        )
        _add_members(world, rows, group)
        world.group_ids.append(group)


def _new_user(world: World, number: int) -> User:
    chance = world.chance
    first, last = chance.pick(FIRST_NAMES), chance.pick(LAST_NAMES)
    account = (
        unicodedata.normalize("NFKD", f"{first}.{last}".replace("'", "")).encode("ascii", "ignore").decode().lower()
    )
    return User(
        id=chance.uuid(),
        provider=chance.pick(PROVIDERS),
        provider_user_id=str(chance.span(10**17, 10**18)),
        email=f"{account}{number}@{chance.pick(ORGANISATIONS)}",
        name=f"{first} {last}",
        since=world.calendar.moment(before=world.calendar.end // 2),
    )


def _add_user(world: World, rows: Rows, user: User) -> None:
    chance, calendar = world.chance, world.calendar
    last_login = calendar.later(user.since, 250)
    holds_tokens = chance.likely(0.4)
    rows["users"].append(
        {
            "internal_uuid": user.id,
            "provider": user.provider,
            "provider_user_id": user.provider_user_id,
            "email": user.email,
            "name": user.name,
            "email_verified": chance.likely(0.93),
            "access_token": _opaque(world, 96) if holds_tokens else None,
            "refresh_token": _opaque(world, 72) if holds_tokens else None,
            "token_expiry": calendar.stamp(last_login + 3600) if holds_tokens else None,
            "created_at": calendar.stamp(user.since),
            "modified_at": calendar.stamp(last_login),
            "last_login": calendar.stamp(last_login),
            "automation": True if chance.likely(0.04) else None,
            "extraction_concurrency_override": chance.span(2, 8) if chance.likely(0.05) else None,
        }
    )
    if chance.likely(0.15):
        linked_at = calendar.later(user.since, 60)
        rows["linked_identities"].append(
            {
                "id": chance.uuid(),
                "user_internal_uuid": user.id,
                "provider": chance.pick(PROVIDERS),
                "provider_user_id": f"linked-{chance.hexadecimal(16)}",
                "email": user.email,
                "name": user.name,
                "linked_at": calendar.stamp(linked_at),
                "last_used_at": calendar.stamp(calendar.later(linked_at, 90)) if chance.likely(0.7) else None,
            }
        )


def _add_tokens(world: World, rows: Rows, user: User) -> None:
    chance, calendar = world.chance, world.calendar
    for _ in range(chance.few(1.2, 5)):
        created = calendar.moment(after=user.since)
        rows["refresh_tokens"].append(
            {
                "id": chance.uuid(),
                "user_internal_uuid": user.id,
                "token": _opaque(world, 48),
                "expires_at": calendar.stamp(created + 30 * SECONDS_A_DAY),
                "created_at": calendar.stamp(created),
            }
        )
    if chance.likely(0.12):
        _add_client_credential(world, rows, user)
    if chance.likely(0.2):
        _add_content_token(world, rows, user)


def _add_client_credential(world: World, rows: Rows, user: User) -> None:
    chance, calendar = world.chance, world.calendar
    created = calendar.moment(after=user.since)
    part = chance.pick(PARTS)
    rows["client_credentials"].append(
        {
            "id": chance.uuid(),
            "owner_uuid": user.id,
            "client_id": f"tmi_cc_{chance.hexadecimal(32)}",
            "client_secret_hash": f"$2a$10${_opaque(world, 39)}",
            "name": f"{part} {chance.pick(('pipeline', 'importer', 'bot', 'exporter'))}",
            "description": world.prose.sentences(chance, "system", 1, part),
            "is_active": chance.likely(0.85),
            "last_used_at": calendar.stamp(calendar.later(created, 60)) if chance.likely(0.8) else None,
            "created_at": calendar.stamp(created),
            "modified_at": calendar.stamp(calendar.later(created, 20)),
            "expires_at": calendar.stamp(created + 90 * SECONDS_A_DAY) if chance.likely(0.5) else None,
        }
    )


def _add_content_token(world: World, rows: Rows, user: User) -> None:
    chance, calendar = world.chance, world.calendar
    created = calendar.moment(after=user.since)
    refreshed = calendar.later(created, 30)
    failed = chance.likely(0.1)
    rows["user_content_tokens"].append(
        {
            "id": chance.uuid(),
            "user_id": user.id,
            "provider_id": chance.pick(CONTENT_PROVIDERS),
            "access_token": chance.randbytes(180),
            "refresh_token": chance.randbytes(120) if chance.likely(0.9) else None,
            "scopes": "openid email https://docs.example.com/auth/files.readonly",
            "expires_at": calendar.stamp(refreshed + 3600),
            "status": "failed_refresh" if failed else "active",
            "last_refresh_at": calendar.stamp(refreshed),
            "last_error": "invalid_grant: token has been expired or revoked" if failed else None,
            "provider_account_id": chance.hexadecimal(21),
            "provider_account_label": user.email,
            "created_at": calendar.stamp(created),
            "modified_at": calendar.stamp(refreshed),
        }
    )


def _add_preferences(world: World, rows: Rows, user: User) -> None:
    chance = world.chance
    if not chance.likely(0.8):
        return
    preferences = {
        client: {
            "theme": chance.pick(("light", "dark", "auto")),
            "language": chance.pick(("en-US", "de", "fr", "ja", "pt-BR", "zh")),
            "dashboard": {"columns": chance.sample(("name", "status", "owner", "modified", "alias"), 3)},
            "page_size": chance.pick((25, 50, 100)),
            "autosave": chance.likely(0.7),
        }
        for client in CLIENTS[: chance.span(1, 2)]
    }
    rows["user_preferences"].append(
        {
            "id": chance.uuid(),
            "user_internal_uuid": user.id,
            "preferences": as_json(preferences),
            **_times(world, user),
        }
    )


def _add_quotas(world: World, rows: Rows, user: User) -> None:
    chance = world.chance
    rows["user_api_quotas"].append(
        {
            "user_internal_uuid": user.id,
            "max_requests_per_minute": chance.pick((500, 1000, 2000)),
            "max_requests_per_hour": chance.pick((10_000, 20_000, None)),
            **_times(world, user),
        }
    )
    rows["addon_invocation_quotas"].append(
        {
            "owner_internal_uuid": user.id,
            "max_active_invocations": chance.span(1, 6),
            "max_invocations_per_hour": chance.pick((10, 20, 50)),
            **_times(world, user),
        }
    )
    rows["webhook_quotas"].append(
        {
            "owner_id": user.id,
            "max_subscriptions": chance.pick((10, 20, 50)),
            "max_events_per_minute": chance.pick((12, 24, 60)),
            "max_subscription_requests_per_minute": 10,
            "max_subscription_requests_per_day": chance.pick((20, 40)),
            **_times(world, user),
        }
    )


def _times(world: World, user: User) -> Row:
    stamp = world.calendar.stamp
    return {"created_at": stamp(user.since), "modified_at": stamp(world.calendar.later(user.since, 100))}


def _add_members(world: World, rows: Rows, group: str) -> None:
    chance, calendar = world.chance, world.calendar
    for user in world.some_users(2 + chance.few(6, 40)):
        rows["group_members"].append(
            {
                "id": chance.uuid(),
                "group_internal_uuid": group,
                "user_internal_uuid": user.id,
                "member_group_internal_uuid": None,
                "subject_type": "user",
                "added_by_internal_uuid": world.user().id,
                "added_at": calendar.stamp(calendar.moment(after=user.since)),
                "notes": world.prose.sentences(chance, "review", 1) if chance.likely(0.15) else None,
            }
        )
    if len(world.group_ids) % GROUPS_TO_ONE_WITH_A_GROUP == 1:
        rows["group_members"].append(
            {
                "id": chance.uuid(),
                "group_internal_uuid": group,
                "user_internal_uuid": None,
                "member_group_internal_uuid": chance.pick(world.group_ids),
                "subject_type": "group",
                "added_by_internal_uuid": world.user().id,
                "added_at": calendar.stamp(calendar.moment()),
                "notes": None,
            }
        )


def _opaque(world: World, size: int) -> str:
    """A token nobody can read, from `size` bytes."""
    return base64.urlsafe_b64encode(world.chance.randbytes(size)).decode()
