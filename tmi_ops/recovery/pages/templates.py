"""Templates of pages, with the parts that they share."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from tmi_ops.words import size_words, time_words


@cache
def page_template(package: str, name: str = "page.html.jinja") -> Template:
    """The template `name` that lies in a package of ours, which may import `parts.html.jinja`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("tmi_ops.recovery.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": time_words, "size": size_words, "moment": moment_words}
    return environment.get_template(name)


def moment_words(moment: datetime | None) -> str:
    """`2026-11-24 03:44:13 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "none"
