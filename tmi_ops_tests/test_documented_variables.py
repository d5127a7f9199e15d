"""Every variable that the code reads stands in the README's table."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_VARIABLE = re.compile(r"(?:TMI_|POSTGRES_|REDIS_)[A-Z0-9_]+")
_IN_A_STRING = re.compile(rf"""["']({_VARIABLE.pattern})(?=["'{{])""")
_ROW = re.compile(r"^\| (`.+?) \|", re.MULTILINE)
_WORD = re.compile(r"`([A-Z0-9_]+\*?)`")


def documented(readme: str) -> set[str]:
    """The variables of the table. `A_B`, `_C` stands for A_C and for A_B_C; `A_*` for all that begin so."""
    table = readme.partition("## Configuration")[2].partition("\n## ")[0]
    names: set[str] = set()
    for row in _ROW.finditer(table):
        whole = ""
        for word in _WORD.findall(row[1]):
            if word.startswith("_"):
                names |= {whole + word, whole.rpartition("_")[0] + word}
            else:
                whole = word
                names.add(word)
    return names | {name for name in _WORD.findall(table) if _VARIABLE.match(name)}


def read_by_the_code() -> set[str]:
    """Names of variables among the code's strings; one that ends with _ is completed when it is read."""
    return {name for file in (ROOT / "tmi_ops").rglob("*.py") for name in _IN_A_STRING.findall(file.read_text())}


def is_documented(variable: str, names: set[str]) -> bool:
    if variable.endswith("_"):
        return any(name.startswith(variable) for name in names)
    families = [name.removesuffix("*") for name in names if name.endswith("*")]
    return variable in names or any(variable.startswith(family) for family in families)


def test_every_variable_that_is_read_stands_in_the_table() -> None:
    names = documented((ROOT / "README.md").read_text())
    assert [variable for variable in sorted(read_by_the_code()) if not is_documented(variable, names)] == []


def test_a_table_is_read_as_a_person_reads_it() -> None:
    names = documented(
        "## Configuration\n| `TMI_A_B`, `_C` | or all in one as `TMI_URL` |\n| `TMI_D_*` | x |\n## End\n"
    )
    assert all(
        is_documented(name, names) for name in ("TMI_A_B", "TMI_A_C", "TMI_A_B_C", "TMI_URL", "TMI_D_E", "TMI_D_")
    )
    assert not any(is_documented(name, names) for name in ("TMI_A", "TMI_B", "TMI_E_"))
