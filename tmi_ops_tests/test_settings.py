from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.settings import load_settings, parse_duration

SECRETS = {
    "POSTGRES_PASSWORD": "hunter2-pg",
    "REDIS_PASSWORD": "hunter2-redis",
    "TMI_OPS_S3_ACCESS_KEY_ID": "hunter2-key",
    "TMI_OPS_S3_SECRET_ACCESS_KEY": "hunter2-s3",
}


def test_the_guides_variables_are_read_from_the_environments_file(tmp_path: Path) -> None:
    (tmp_path / ".env.dev").write_text(
        "POSTGRES_HOST=db.example.com\nPOSTGRES_PORT=6543\nPOSTGRES_USER=tmi\nPOSTGRES_DB=tmi_dev\n"
        "POSTGRES_SSLMODE=disable\nREDIS_HOST=cache.example.com\nREDIS_DB=3\n"
    )
    settings = load_settings({}, tmp_path)
    assert settings.environment == "development"
    assert settings.postgres.describe() == "tmi@db.example.com:6543/tmi_dev"
    assert settings.postgres.sslmode == "disable"
    assert settings.redis.describe() == "cache.example.com:6379/3"


def test_the_process_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env.dev").write_text("POSTGRES_HOST=from-file\nPOSTGRES_DB=from-file\n")
    settings = load_settings({"POSTGRES_HOST": "from-process"}, tmp_path)
    assert (settings.postgres.host, settings.postgres.database) == ("from-process", "from-file")


def test_the_servers_own_names_are_understood(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "TMI_DATABASE_URL": "postgresql://tmi_app:p%40ss@db.example.com:5433/tmi?sslmode=verify-full",
            "TMI_REDIS_HOST": "cache.example.com",
        },
        tmp_path,
    )
    assert settings.postgres.describe() == "tmi_app@db.example.com:5433/tmi"
    assert settings.postgres.sslmode == "verify-full"
    assert settings.postgres.password is not None
    assert settings.postgres.password.get_secret_value() == "p@ss"
    assert settings.redis.host == "cache.example.com"


def test_the_servers_address_of_its_cache_may_ask_for_tls(tmp_path: Path) -> None:
    environment = {
        "TMI_REDIS_URL": "rediss://ops:p%40ss@cache.example.com:6380/2",
        "TMI_REDIS_TLS_CA_FILE": "/etc/tmi-redis-tls/ca.crt",
    }
    redis = load_settings(environment, tmp_path).redis
    assert (redis.describe(), redis.user) == ("cache.example.com:6380/2", "ops")
    assert (redis.tls_enabled, redis.tls_ca_file) == (True, "/etc/tmi-redis-tls/ca.crt")
    assert redis.password is not None
    assert redis.password.get_secret_value() == "p@ss"
    assert not load_settings({**environment, "REDIS_TLS_ENABLED": "false"}, tmp_path).redis.tls_enabled


def test_what_becomes_of_cached_keys_can_be_told(tmp_path: Path) -> None:
    policy = load_settings({}, tmp_path).cache
    assert (policy.sessions, policy.drop, policy.keep) == ("drop-sessions", (), ())
    told = {
        "TMI_OPS_CACHE_SESSIONS": "keep-sessions",
        "TMI_OPS_CACHE_DROP": "acme:*",
        "TMI_OPS_CACHE_KEEP": "a:*, b:*",
    }
    policy = load_settings(told, tmp_path).cache
    assert (policy.sessions, policy.drop, policy.keep) == ("keep-sessions", ("acme:*",), ("a:*", "b:*"))


@pytest.mark.parametrize(
    ("environment", "rpo", "rto"),
    [
        ("development", timedelta(hours=24), timedelta(hours=4)),
        ("staging", timedelta(hours=4), timedelta(hours=2)),
        ("production", timedelta(minutes=15), timedelta(minutes=30)),
    ],
)
def test_each_environment_has_the_guides_objectives(
    tmp_path: Path, environment: str, rpo: timedelta, rto: timedelta
) -> None:
    settings = load_settings({"TMI_ENV": environment, "POSTGRES_SSLMODE": "require"}, tmp_path)
    assert (settings.objectives.rpo, settings.objectives.rto) == (rpo, rto)


def test_an_objective_can_be_overridden(tmp_path: Path) -> None:
    settings = load_settings({"TMI_OPS_RPO": "90 min"}, tmp_path)
    assert settings.objectives.rpo == timedelta(minutes=90)
    assert settings.objectives.rto == timedelta(hours=4)


def test_an_unknown_environment_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="prodution") as caught:
        load_settings({"TMI_ENV": "prodution"}, tmp_path)
    assert "production" in caught.value.hint


def test_an_environment_of_ones_own_is_declared_by_its_objectives(tmp_path: Path) -> None:
    (tmp_path / ".env.training").write_text("TMI_OPS_RPO=2h\nTMI_OPS_RTO=1d\n")
    assert load_settings({"TMI_ENV": "training"}, tmp_path).objectives.rto == timedelta(days=1)


def test_production_refuses_a_connection_that_could_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sslmode=prefer"):
        load_settings({"TMI_ENV": "production"}, tmp_path)
    allowed = load_settings({"TMI_ENV": "production", "TMI_OPS_ALLOW_INSECURE_POSTGRES": "1"}, tmp_path)
    assert allowed.postgres.sslmode == "prefer"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("POSTGRES_PORT", "fivefourthreetwo", "POSTGRES_PORT"),
        ("POSTGRES_PORT", "65536", "POSTGRES_PORT"),
        ("POSTGRES_SSLMODE", "on", "POSTGRES_SSLMODE"),
        ("REDIS_DB", "first", "REDIS_DB"),
        ("REDIS_DB", "-1", "REDIS_DB"),
        ("TMI_REDIS_URL", "http://cache.example.com", "not a Redis URL"),
        ("TMI_OPS_CACHE_SESSIONS", "forget", "TMI_OPS_CACHE_SESSIONS"),
        ("TMI_OPS_RPO", "soon", "TMI_OPS_RPO"),
        ("TMI_OPS_RTO", "0m", "longer than zero"),
        ("TMI_OPS_RTO", "99999999999d", "TMI_OPS_RTO"),
        ("TMI_DATABASE_URL", "mysql://root@localhost/tmi", "not a PostgreSQL URL"),
        ("TMI_DATABASE_URL", "postgresql://localhost:http/tmi", "port"),
    ],
)
def test_a_malformed_value_is_named(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings({variable: value}, tmp_path)
    assert caught.value.hint


def test_an_empty_variable_is_an_unset_one(tmp_path: Path) -> None:
    (tmp_path / ".env.dev").write_text("POSTGRES_HOST=db.example.com\n")
    empty = {"TMI_ENV": "", "POSTGRES_HOST": "", "TMI_OPS_HOME": "", "TMI_OPS_RPO": "", "TMI_OPS_PG_BINDIR": ""}
    assert load_settings(empty, tmp_path) == load_settings({}, tmp_path)
    assert load_settings(empty, tmp_path).postgres.host == "db.example.com"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env.dev").write_bytes(b"POSTGRES_PASSWORD=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"\.env\.dev cannot be read: it is not UTF-8 text"):
        load_settings({}, tmp_path)


def test_no_repr_and_no_message_shows_a_secret(tmp_path: Path) -> None:
    settings = load_settings(SECRETS, tmp_path)
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())
    assert "hunter2" not in settings.model_dump_json()
    with pytest.raises(SettingsError) as caught:
        load_settings({**SECRETS, "POSTGRES_PORT": "x"}, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_the_stacks_addresses_are_taken_a_whole_group_at_a_time(tmp_path: Path) -> None:
    home = tmp_path / ".tmi-ops"
    home.mkdir()
    (home / "stack.env").write_text(
        "POSTGRES_HOST=127.0.0.1\nPOSTGRES_PASSWORD=of-the-stack\nTMI_OPS_S3_BUCKET=stack-bucket\n"
    )
    alone = load_settings({}, tmp_path)
    assert alone.uses_embedded_stack
    assert alone.store.bucket == "stack-bucket"
    configured = load_settings({"POSTGRES_HOST": "db.example.com"}, tmp_path)
    assert not configured.uses_embedded_stack
    assert configured.postgres.password is None
    assert configured.store.bucket == "stack-bucket"


def test_only_development_falls_back_on_the_stack(tmp_path: Path) -> None:
    home = tmp_path / ".tmi-ops"
    home.mkdir()
    (home / "stack.env").write_text("POSTGRES_HOST=127.0.0.1\n")
    staging = load_settings({"TMI_ENV": "staging"}, tmp_path)
    assert not staging.uses_embedded_stack


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("4h", 14400), ("1d 12h", 129600), ("30 min", 1800), ("90s", 90)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "15", "m", "15 parsecs", "4h-2h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_what_is_kept_is_the_guides_seven_days_until_variables_say_otherwise(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path).retention.window == timedelta(days=7)
    (tmp_path / ".env.dev").write_text("TMI_OPS_KEEP_DAILY=9\nTMI_OPS_RECOVERY_WINDOW=14d\nTMI_OPS_KEEP_LAST=2\n")
    policy = load_settings({"TMI_OPS_KEEP_MONTHLY": "0"}, tmp_path).retention
    assert policy.describe() == "14 days, the last 2, 9 daily, 4 weekly"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TMI_OPS_KEEP_LAST", "0"),
        ("TMI_OPS_KEEP_DAILY", "many"),
        ("TMI_OPS_KEEP_YEARLY", "-1"),
        ("TMI_OPS_RECOVERY_WINDOW", "1h"),
        ("TMI_OPS_RECOVERY_WINDOW", "a week"),
    ],
)
def test_a_policy_that_could_lose_the_newest_backup_or_means_nothing_is_refused_by_its_variable(
    variable: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=variable):
        load_settings({variable: value}, tmp_path)


def test_alert_addresses_may_hold_commas_and_are_never_shown(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "TMI_OPS_ALERT_URLS": "mailto://u:hunter2@example.com?to=a@example.com,b@example.com\n slack://hunter2/b/c",
            "TMI_OPS_ALERT_URLS_CRITICAL": "pagerduty://hunter2@hunter2, json://hunter2@localhost",
            "TMI_OPS_HEARTBEAT_URL": "https://hc-ping.com/hunter2",
            "TMI_OPS_ALERT_REPEAT": "90m",
        },
        tmp_path,
    )
    assert settings.alerts.describe() == "2 for all, 2 for critical"
    assert settings.alerts.urls[0].get_secret_value().endswith("a@example.com,b@example.com")
    assert settings.alerts.repeat == timedelta(minutes=90)
    assert "hunter2" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TMI_OPS_ALERT_URLS", "hunter2"),
        ("TMI_OPS_ALERT_URLS_WARNING", "hunter2 slack://a/b/c"),
        ("TMI_OPS_ALERT_URLS_CRITICAL", "slack://a/b/c mail to hunter2"),
        ("TMI_OPS_ALERT_REPEAT", "0s"),
        ("TMI_OPS_HEARTBEAT_URL", "hc-ping.com/hunter2"),
        ("TMI_OPS_HEARTBEAT_URL", "ftp://hunter2/x"),
        ("TMI_OPS_HEARTBEAT_URL", "https://hunter2:port/x"),
    ],
)
def test_a_malformed_alert_address_is_refused_by_its_variable_and_not_shown(
    variable: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings({variable: value}, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_prefix_with_an_empty_part_is_refused_with_the_one_to_set(tmp_path: Path) -> None:
    """Some S3 servers drop the part, and list nothing under it afterwards."""
    with pytest.raises(SettingsError, match="empty part") as refused:
        load_settings({"TMI_OPS_S3_PREFIX": "/lab//team/"}, tmp_path)
    assert "'lab/team'" in refused.value.hint
