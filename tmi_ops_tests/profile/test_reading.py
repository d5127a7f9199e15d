"""TMI_OPS_PROFILE: whose database it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.profile import NONE, Root, SqlCheck, Tie, read_profile
from tmi_ops.profile.cache_keys import KeyPattern, KeyPurpose
from tmi_ops.profile.tmi import TMI
from tmi_ops.settings import CachePolicy, load_settings

SHOP = """
name: shop
tables: [customers, sales.orders]
roots:
  order: {table: sales.orders}
ties:
  - {child: sales.notes, column: order_id, parent: sales.orders}
cache:
  - {pattern: "shop:order:*", purpose: copy, longest_life: PT10M, what: orders}
  - {pattern: "revoked:*", purpose: revocation}
checks:
  - {name: orders-have-lines, sql: "SELECT 1 WHERE false", means: an order without a line cannot be delivered}
  - {name: customers, sql: "SELECT count(*) FROM customers", at_least: 1}
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "shop.yaml"
    path.write_text(text)
    return path


def test_nothing_said_means_tmi_and_none_knows_nothing(tmp_path: Path) -> None:
    assert read_profile(None, tmp_path) is TMI
    assert read_profile("tmi", tmp_path) is TMI
    assert read_profile("none", tmp_path) is NONE
    assert (NONE.has_models, NONE.has_roles, NONE.tables, NONE.roots, NONE.ties, NONE.cache, NONE.checks) == (
        (False, False, (), {}, (), (), ())
    )
    assert TMI.has_models
    assert TMI.has_roles


def test_a_file_says_what_there_is_to_know(tmp_path: Path) -> None:
    written(tmp_path, SHOP)
    shop = read_profile("shop.yaml", tmp_path)
    assert shop.name == "shop"
    assert not shop.has_models
    assert not shop.has_roles
    assert shop.tables == ("customers", "sales.orders")
    assert shop.roots == {"order": Root(table="sales.orders")}
    assert shop.ties == (Tie(child="sales.notes", column="order_id", parent="sales.orders", referenced="id"),)
    assert shop.cache == (
        KeyPattern("shop:order:*", KeyPurpose.COPY, timedelta(minutes=10), "orders"),
        KeyPattern("revoked:*", KeyPurpose.REVOCATION, timedelta(days=1), ""),
    )
    assert shop.checks == (
        SqlCheck(
            name="orders-have-lines", sql="SELECT 1 WHERE false", means="an order without a line cannot be delivered"
        ),
        SqlCheck(name="customers", sql="SELECT count(*) FROM customers", at_least=1),
    )


def test_settings_carry_the_profile_and_the_cache_policy_its_keys(tmp_path: Path) -> None:
    written(tmp_path, SHOP)
    settings = load_settings({"TMI_OPS_PROFILE": "shop.yaml"}, tmp_path)
    assert settings.profile.name == "shop"
    assert settings.cache.patterns == settings.profile.cache
    assert settings.cache.revocations == ("revoked:*",)
    assert load_settings({"TMI_OPS_PROFILE": "none"}, tmp_path).cache.patterns == ()
    assert load_settings({}, tmp_path).cache == CachePolicy()
    assert CachePolicy().revocations[0] == "blacklist:*"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tables: [a; DROP TABLE b]", "a table must be named"),
        ("checks: [{name: x, sql: DROP TABLE a}]", "a check must be one SELECT"),
        ("checks: [{name: X y, sql: SELECT 1}]", "a name consists of lower-case letters"),
        ("checks: [{name: x, sql: SELECT 1}, {name: x, sql: SELECT 2}]", "two checks have the name x"),
        ("checks: [{name: x, sql: SELECT 1, at_least: 3, at_most: 2}]", "at_least is greater than at_most"),
        ("cache: [{pattern: 'a*b', purpose: copy}]", "cache.0.pattern"),
        ("cache: [{pattern: 'a:*', purpose: whatever}]", "cache.0.purpose"),
        ("tabels: [a]", "tabels: Extra inputs are not permitted"),
        ("- a list", "shop.yaml"),
        ("a: [", "is not YAML at line 1"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_says_anything_else_is_refused_by_its_place(tmp_path: Path, text: str, said: str) -> None:
    written(tmp_path, text)
    with pytest.raises(SettingsError, match="profile") as refused:
        read_profile("shop.yaml", tmp_path)
    assert said in refused.value.message


def test_a_name_that_is_no_profile_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="names an unknown profile: 'shop'"):
        read_profile("shop", tmp_path)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_profile("gone.yaml", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a {k: 1}\nb: &b {<<: [*a, *a]}\nname: shop\n", "an alias at line 2"),
        ("tables: " + "[" * 5000 + "]" * 5000, "nesting deeper than 20 levels at line 1"),
        ("name: 2026-13-45\n", "month must be in 1..12"),
        ("name: " + "9" * 5000, "is not valid YAML"),
        ("checks: [{name: a, sql: SELECT 1, at_least: .nan}]", "checks.0.at_least"),
        ("cache: [{pattern: 'a*', purpose: copy, longest_life: -5}]", "cache.0.longest_life"),
    ],
)
def test_a_file_that_would_take_all_memory_or_says_nothing_that_can_be_kept_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    written(tmp_path, text)
    with pytest.raises(SettingsError, match=says):
        read_profile("shop.yaml", tmp_path)
