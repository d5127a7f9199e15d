"""Teams and projects, who is in them, how they relate, and their notes."""

from __future__ import annotations

from tmi_ops.stack.dataset.metadata import add_metadata
from tmi_ops.stack.dataset.vocabulary import NOTE_KINDS, ORGANISATIONS, PARTS, SUBJECTS
from tmi_ops.stack.dataset.world import Project, Rows, User, World, link, slug

TEAM_ROLES = (
    "engineering_lead",
    "engineer",
    "engineer",
    "engineer",
    "product_manager",
    "business_leader",
    "security_specialist",
)
PARTY_ROLES = ("engineering_lead", "business_leader", "security_specialist", "other")
RELATIONSHIPS = ("parent", "child", "dependency", "dependent", "related", "supersedes", "other")
STATUSES = ("active", "active", "active", "on_hold", "winding_down", "archived")


def add_teams_and_projects(world: World, rows: Rows, teams: int, projects: int) -> None:
    """`teams` teams, `projects` projects spread over them, and everything below both."""
    chance = world.chance
    team_ids = [_add_team(world, rows, number) for number in range(teams)]
    for number in range(projects):
        world.projects.append(_add_project(world, rows, chance.pick(team_ids), number))
    _relate(world, rows, "team", team_ids)
    _relate(world, rows, "project", [project.id for project in world.projects])


def _add_team(world: World, rows: Rows, number: int) -> str:
    chance, calendar = world.chance, world.calendar
    team, name = chance.uuid(), f"{chance.pick(PARTS)} {chance.pick(('Team', 'Squad', 'Group', 'Guild'))}"
    members = world.some_users(3 + chance.few(4, 20))
    rows["teams"].append(
        {
            **_common(world, team, name, members[0]),
            "uri": link(chance, "teams", slug(name)),
            "email_address": f"{slug(name)}-{number}@{chance.pick(ORGANISATIONS)}",
        }
    )
    for member in members:
        rows["team_members"].append(
            {
                "id": chance.uuid(),
                "team_id": team,
                "user_internal_uuid": member.id,
                "role": (role := chance.pick((*TEAM_ROLES, "other"))),
                "custom_role": chance.pick(("data steward", "accessibility lead", "liaison"))
                if role == "other"
                else None,
                "created_at": calendar.stamp(calendar.moment(after=member.since)),
            }
        )
    _add_parties(world, rows, "team", team, members[:2])
    _add_notes(world, rows, "team", team, name)
    add_metadata(world, rows, "team", team, calendar.moment())
    return team


def _add_project(world: World, rows: Rows, team: str, number: int) -> Project:
    chance = world.chance
    project = Project(chance.uuid(), f"{chance.pick(PARTS)} {chance.pick(SUBJECTS)} {number}", team)
    parties = world.some_users(chance.span(1, 3))
    rows["projects"].append(
        {
            **_common(world, project.id, project.name, parties[0]),
            "team_id": team,
            "uri": link(chance, "projects", slug(project.name)) if chance.likely(0.7) else None,
        }
    )
    _add_parties(world, rows, "project", project.id, parties)
    _add_notes(world, rows, "project", project.id, project.name)
    add_metadata(world, rows, "project", project.id, world.calendar.moment())
    return project


def _common(world: World, id_: str, name: str, creator: User) -> dict[str, str | int | None]:
    """The columns teams and projects have in common."""
    chance, calendar = world.chance, world.calendar
    created = calendar.moment(after=creator.since)
    reviewed = calendar.later(created, 120) if chance.likely(0.4) else None
    return {
        "id": id_,
        "name": name,
        "description": world.prose.sentences(chance, "system", chance.span(1, 4), name),
        "status": chance.pick(STATUSES),
        "created_by_internal_uuid": creator.id,
        "modified_by_internal_uuid": world.user().id if chance.likely(0.7) else None,
        "reviewed_by_internal_uuid": world.user().id if reviewed else None,
        "reviewed_at": calendar.stamp(reviewed) if reviewed else None,
        "created_at": calendar.stamp(created),
        "modified_at": calendar.stamp(calendar.later(created, 90)),
        "version": chance.span(1, 9),
    }


def _add_parties(world: World, rows: Rows, kind: str, id_: str, users: list[User]) -> None:
    chance, calendar = world.chance, world.calendar
    for user in users:
        rows[f"{kind}_responsible_parties"].append(
            {
                "id": chance.uuid(),
                f"{kind}_id": id_,
                "user_internal_uuid": user.id,
                "role": (role := chance.pick(PARTY_ROLES)),
                "custom_role": chance.pick(("budget owner", "privacy contact", "deputy")) if role == "other" else None,
                "created_at": calendar.stamp(calendar.moment(after=user.since)),
            }
        )


def _add_notes(world: World, rows: Rows, kind: str, id_: str, name: str) -> None:
    chance, calendar = world.chance, world.calendar
    for _ in range(chance.few(1.5, 6)):
        title = f"{chance.pick(SUBJECTS)} {chance.pick(NOTE_KINDS)}"
        created = calendar.moment()
        rows[f"{kind}_notes"].append(
            {
                "id": chance.uuid(),
                f"{kind}_id": id_,
                "name": title,
                "content": world.prose.markdown(chance, title, name, chance.span(0, 3)),
                "description": world.prose.sentences(chance, "review", 1, name) if chance.likely(0.4) else None,
                "timmy_enabled": chance.likely(0.9),
                "sharable": chance.likely(0.6),
                "created_at": calendar.stamp(created),
                "modified_at": calendar.stamp(calendar.later(created, 40)),
            }
        )


def _relate(world: World, rows: Rows, kind: str, ids: list[str]) -> None:
    chance, calendar = world.chance, world.calendar
    for position, one in enumerate(ids[1:], start=1):
        if position == 1 or chance.likely(0.5):
            relationship = chance.pick(RELATIONSHIPS)
            rows[f"{kind}_relationships"].append(
                {
                    "id": chance.uuid(),
                    f"{kind}_id": one,
                    f"related_{kind}_id": ids[chance.span(0, position - 1)],
                    "relationship": relationship,
                    "custom_relationship": "shares an on-call rota with" if relationship == "other" else None,
                    "created_at": calendar.stamp(calendar.moment()),
                }
            )
