"""What operators see: settings, the system's audit trail, and feedback on the user interface."""

from __future__ import annotations

from tmi_ops.stack.dataset.collaboration import CLIENT_VERSIONS, screenshot
from tmi_ops.stack.dataset.world import Rows, World, as_json

SETTINGS = (
    ("rate_limit.requests_per_minute", "120", "int", "Maximum API requests per minute per user"),
    ("rate_limit.requests_per_hour", "2000", "int", "Maximum API requests per hour per user"),
    ("session.timeout_minutes", "45", "int", "JWT token expiration in minutes"),
    ("websocket.max_participants", "12", "int", "Maximum participants per collaboration session"),
    ("features.saml_enabled", "true", "bool", "Enable SAML authentication"),
    ("features.webhooks_enabled", "true", "bool", "Enable webhook subscriptions"),
    ("ui.default_theme", "auto", "string", "Default UI theme (auto, light, dark)"),
    ("upload.max_file_size_mb", "25", "int", "Maximum file upload size in megabytes"),
    ("observability.sampling_rate", "0.1", "float", "Share of requests that are traced"),
)
BROWSERS = (
    ("Mozilla/5.0 (X11; Linux x86_64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0", "Firefox", "Linux"),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/{n}.0.0.0 Safari/537.36",
        "Chromium",
        "Windows",
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.{n} Safari/605.1.15",
        "Safari",
        "macOS",
    ),
)
VIEWPORTS = ("1920x1080", "1440x900", "2560x1440", "1280x720", "390x844", "1024x768")
SURFACES = ("tm_list", "tm_edit", "dfd_editor", "threat_page", "survey_fill", "dashboard", "admin_users")


def add_settings(world: World, rows: Rows) -> None:
    """System settings, some of them set by an operator."""
    for key, value, kind, description in SETTINGS:
        explicit = world.chance.likely(0.5)
        rows["system_settings"].append(
            {
                "setting_key": key,
                "value": value,
                "setting_type": kind,
                "description": description,
                "modified_at": world.calendar.stamp(world.calendar.moment()),
                "modified_by": world.user().id if explicit else None,
                "origin": "explicit" if explicit else "seeded",
            }
        )


def add_system_audit(world: World, rows: Rows, count: int) -> None:
    """`count` changes that operators made."""
    chance = world.chance
    for _ in range(count):
        key, value, _, description = chance.pick(SETTINGS)
        actor = world.user()
        rows["system_audit_entries"].append(
            {
                "id": chance.uuid(),
                "actor_email": actor.email,
                "actor_provider": actor.provider,
                "actor_provider_id": actor.provider_user_id,
                "actor_display_name": actor.name,
                "http_method": "PUT",
                "http_path": f"/admin/settings/{key}",
                "field_path": "value",
                "old_value_redacted": str(chance.span(10, 500)) if value.isdigit() else "[redacted]",
                "new_value_redacted": value if value.isdigit() else "[redacted]",
                "change_summary": f"Changed: {description}",
                "created_at": world.calendar.stamp(world.calendar.moment(after=actor.since)),
            }
        )


def add_usability_feedback(world: World, rows: Rows, count: int) -> None:
    """`count` remarks on the user interface, some with a screenshot."""
    chance = world.chance
    for _ in range(count):
        author = world.user()
        agent, browser, system = chance.pick(BROWSERS)
        number = str(chance.span(118, 139))
        rows["usability_feedback"].append(
            {
                "id": chance.uuid(),
                "sentiment": chance.pick(("up", "down")),
                "verbatim": world.prose.sentences(chance, "feedback", chance.span(1, 3), "the diagram"),
                "surface": chance.pick(SURFACES),
                "client_id": "tmi-ux",
                "client_version": chance.pick(CLIENT_VERSIONS),
                "client_build": chance.hexadecimal(7),
                "user_agent": agent.replace("{n}", number),
                "user_agent_data": as_json({"platform": system, "brands": [{"brand": browser, "version": number}]}),
                "viewport": chance.pick(VIEWPORTS),
                "screenshot": screenshot(world) if chance.likely(0.3) else None,
                "created_by": author.id,
                "created_at": world.calendar.stamp(world.calendar.moment(after=author.since)),
            }
        )
