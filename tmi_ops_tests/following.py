"""Follows a page of the documentation: runs its fenced blocks in order, as a reader would.

`sh`: a `tmi-ops` command runs as a process of its own; `cd`, `export` and `unset` change what the next ones find; a
shell runs the rest. A comment `exit code 1` says that the command ends so; otherwise it ends with 0, and every
question is answered with yes. `sql` goes to psql as the superuser. `ini` is appended to the file that the text before
it names, and `pg_hba` to the server's. A block without a language is what the `sh` block before it shows, line by
line; `...` stands for anything.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tmi_ops_tests.commands import command

# Programs that cannot run here: they need root, an engine, a cluster or a domain.
NOT_HERE = ("systemctl", "useradd", "docker", "kubectl", "helm", "caddy")
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`(\.env\.\w+)`")
_CODE = re.compile(r"#.*exit code (\d)")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """`before`: the text between it and the block before."""

    language: str
    text: str
    before: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.strip()]

    @property
    def commands(self) -> list[str]:
        """A loop over several lines is one command."""
        found: list[str] = []
        for line in self.lines:
            if found and found[-1].startswith("for ") and not found[-1].endswith("\ndone"):
                found[-1] += f"\n{line}"
            else:
                found.append(line)
        return found

    @property
    def file(self) -> str:
        """The file that the text before it names last."""
        return _FILE.findall(self.before)[-1]


def blocks(page: str) -> Iterator[Block]:
    end = 0
    for found in _BLOCK.finditer(page):
        yield Block(found["language"], found["text"], page[end : found.start()])
        end = found.end()


def commands_of(page: str) -> list[str]:
    """Every command of the page."""
    return [command for block in blocks(page) if block.language == "sh" for command in block.commands]


def section(page: str, title: str) -> str:
    """The part of a page below this heading."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@dataclass
class Reader:
    """Somebody at a shell who does what the page says.

    Attributes:
        instead: what stands on the page, and what it is here.
        elsewhere: commands that cannot run here, by their beginning, each with what is done with the rest of the line.
        sql, hba: run as the superuser; append to the server's pg_hba.conf.
        shown: what each command showed.
    """

    cwd: Path
    variables: dict[str, str]
    instead: Mapping[str, str]
    elsewhere: Mapping[str, Callable[[str], None]]
    sql: Callable[[str], None]
    hba: Callable[[str], None]
    shown: list[str] = field(default_factory=list)
    _latest: int = 0

    def follow(self, page: str) -> None:
        for block in blocks(page):
            match block.language:
                case "sh":
                    self._latest = len(self.shown)
                    for line in block.commands:
                        self._type(line)
                case "sql":
                    self.sql(block.text)
                case "ini":
                    with (self.cwd / block.file).open("a") as file:
                        file.write(self._here(block.text))
                case "pg_hba":
                    self.hba(block.text)
                case "":
                    self._compare(block)
                case other:
                    raise AssertionError(f"The page has a block of {other}, which nobody here can follow.")

    def _type(self, line: str) -> None:
        expected = int(code[1]) if (code := _CODE.search(line)) else 0
        line = self._here(line)
        for beginning, do in self.elsewhere.items():
            if line.startswith(beginning):
                do(line.removeprefix(beginning).strip())
                return
        words = shlex.split(line, comments=True)
        match words:
            case ["cd", directory]:
                self.cwd /= directory
            case ["export", *assignments] if all(_ASSIGNMENT.match(one) for one in assignments):
                self.variables |= dict(one.split("=", 1) for one in assignments)
            case ["unset", *names]:
                for name in names:
                    del self.variables[name]
            case ["tmi-ops", *arguments]:
                self._run(arguments, expected)
            case _:
                self._ended(
                    subprocess.run(
                        ["/bin/sh", "-euc", line],
                        cwd=self.cwd,
                        env=self.variables,
                        capture_output=True,
                        text=True,
                        check=False,
                    ),
                    expected,
                )

    def _run(self, words: list[str], expected: int) -> None:
        self._ended(command(*words, env=self.variables, cwd=self.cwd, said="y\n"), expected)

    def _ended(self, done: subprocess.CompletedProcess[str], expected: int) -> None:
        self.shown.append(done.stdout)
        assert done.returncode == expected, (done.args, done.stdout, done.stderr)

    def _compare(self, block: Block) -> None:
        shown = "\n".join(self.shown[self._latest :])
        for line in block.lines:
            wanted = ".*".join(re.escape(piece.strip()) for piece in line.split("..."))
            assert re.search(wanted, shown), (line, shown)

    def _here(self, text: str) -> str:
        for printed, own in self.instead.items():
            text = text.replace(printed, own)
        return text
