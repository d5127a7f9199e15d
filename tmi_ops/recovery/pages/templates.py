"""Loads page templates and their shared parts."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tmi_ops.text import printable, size_words, time_words


@cache
def page_template(package: str, name: str = "page.html.jinja") -> Template:
    """The template `name` of a package; it may import `parts.html.jinja`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("tmi_ops.recovery.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": time_words, "size": size_words, "moment": moment_words}
    return environment.get_template(name)


def _shown(value: object) -> object:
    """Make a value printable before it is escaped for HTML; output of macros is escaped already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def moment_words(moment: datetime | None) -> str:
    """`2026-11-24 03:44:13 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "none"
