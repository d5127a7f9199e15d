"""Mutates the deciding functions, one place at a time, and runs the fast tests that stand for them: what survives is a
decision that no test holds. Results: benchmarks/mutations.md.

    .venv/bin/python -m benchmarks.mutations [--write] [NAME ...]
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "benchmarks" / "mutations.md"
TIMEOUT_S = 300
# A tenth of a file's places would say little; all of a large one would take hours.
AT_MOST = 24


@dataclass(frozen=True)
class Target:
    """A file of decisions, and the fast tests of it. `functions`: those that decide, where others do deeds."""

    name: str
    file: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


_BY_SHADOW = "tmi_ops_tests/objectives/test_by_shadow.py"
TARGETS = (
    Target("guards", "tmi_ops/objectives/acting.py", ("tmi_ops_tests/objectives/test_acting.py",)),
    Target("automation", "tmi_ops/automation/judging.py", ("tmi_ops_tests/automation/test_judging.py",)),
    Target("retention", "tmi_ops/retention/planning.py", ("tmi_ops_tests/retention/test_planning.py",)),
    Target("alerts", "tmi_ops/alerts/planning.py", ("tmi_ops_tests/alerts/test_planning.py",)),
    Target("timetable", "tmi_ops/objectives/timetable.py", ("tmi_ops_tests/objectives/test_timetable.py",)),
    Target("RPO", "tmi_ops/objectives/rpo.py", ("tmi_ops_tests/objectives/test_rpo.py", _BY_SHADOW)),
    Target("RTO", "tmi_ops/objectives/rto.py", ("tmi_ops_tests/objectives/test_rto.py", _BY_SHADOW)),
    Target(
        "lease",
        "tmi_ops/wal/lease.py",
        ("tmi_ops_tests/wal/test_lease.py",),
        ("is_held", "_is_dead", "_process_start", "_following", "advanced", "_lsn"),
    ),
)
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div}


@dataclass(frozen=True)
class Mutation:
    """One change: where, what, and the whole file with it."""

    line: int
    what: str
    source: str


def mutations(source: str, functions: tuple[str, ...] = ()) -> Iterator[Mutation]:
    """Each comparison, `and`/`or`, `not`, sign of arithmetic, `min`/`max`, `any`/`all` turned, one at a time."""
    tree = ast.parse(source)
    deciding = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in functions
        for inner in ast.walk(node)
    }
    for number, node in enumerate(ast.walk(tree)):
        if functions and id(node) not in deciding:
            continue
        for what, change in _changes(node):
            mutant = copy.deepcopy(tree)
            change(list(ast.walk(mutant))[number])
            yield Mutation(getattr(node, "lineno", 0), what, ast.unparse(mutant))


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], object]]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        turned = _COMPARISONS[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {turned.__name__}", lambda one: one.ops.__setitem__(0, turned())
    if isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {other.__name__}", lambda one: setattr(one, "op", other())
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
        swapped = _ARITHMETIC[type(node.op)]
        yield f"{type(node.op).__name__} -> {swapped.__name__}", lambda one: setattr(one, "op", swapped())
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        names = {"min": "max", "max": "min", "any": "all", "all": "any"}
        if node.func.id in names:
            yield f"{node.func.id} -> {names[node.func.id]}", lambda one: setattr(one.func, "id", names[one.func.id])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", _dropped


def _dropped(node: ast.UnaryOp) -> None:
    """`not x` becomes `bool(x)`: written as `not not x`."""
    node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def survivors(target: Target, workspace: Path) -> tuple[int, list[Mutation]]:
    """How many mutations were tried, and those that every test let pass."""
    file = workspace / target.file
    source = (ROOT / target.file).read_text()
    found = list(mutations(source, target.functions))
    step = max(1, -(-len(found) // AT_MOST))
    tried = found[::step]
    left = []
    for mutation in tried:
        file.write_text(mutation.source)
        if _passes(target, workspace):
            left.append(mutation)
    file.write_text(source)
    return len(tried), left


def _passes(target: Target, workspace: Path) -> bool:
    """In a child that has everything loaded but our own modules: a process of its own takes seconds to begin."""
    child = os.fork()
    if child == 0:
        os._exit(_run_tests(target, workspace))
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(target: Target, workspace: Path) -> int:
    os.chdir(workspace)
    sys.path[:] = [str(workspace), *(path for path in sys.path if path not in ("", str(ROOT)))]
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.split(".")[0] in ("tmi_ops", "tmi_ops_tests")]:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in getattr(one, "__module__", "").lower()]
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-p", "no:warnings", "--noconftest"]
        return int(pytest.main([*options, "-m", "not slow", *target.tests]))


def main(arguments: list[str]) -> None:
    """Prints the table, and with --write keeps it."""
    wanted = [target for target in TARGETS if not (names := set(arguments) - {"--write"}) or target.name in names]
    for heavy in ("hypothesis", "pydantic", "psycopg", "dagster", "sqlalchemy", "boto3"):
        importlib.import_module(heavy)
    rows: list[str] = []
    lists: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as root:
        workspace = Path(root)
        for name in ("tmi_ops", "tmi_ops_tests"):
            shutil.copytree(ROOT / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", workspace)
        for target in wanted:
            if not _passes(target, workspace):
                raise SystemExit(f"{target.name}: its tests fail without any mutation")
            tried, left = survivors(target, workspace)
            killed = tried - len(left)
            rows.append(f"| {target.name} | `{target.file}` | {killed} of {tried} | {100 * killed / tried:.0f} % |")
            lists += [f"- `{target.file}:{one.line}` {one.what}" for one in left]
            print(rows[-1], *lists[len(lists) - len(left) :], sep="\n", flush=True)
    if "--write" in arguments:
        REPORT.write_text("\n".join([*_HEAD, *rows, "", "## Survivors", "", *(lists or ["None."]), ""]))


_HEAD = [
    "# Mutations of the deciding functions",
    "",
    "Made by `python -m benchmarks.mutations --write` " + f"on {date.today():%Y-%m-%d}. Of a long file every second or",
    "third place is tried. What survives is listed below: either a decision without a test, or a change that means the",
    "same (a boundary that no clock hits, a `min` of equal values).",
    "",
    "| decides | file | killed | |",
    "|---|---|---|---|",
]

if __name__ == "__main__":
    main(sys.argv[1:])
