"""Output to the terminal: the consoles, progress bars, ages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Span, Text

from tmi_ops.cli.printed_commands import as_typed, carried
from tmi_ops.cli.wrapping import comment_of, hanging, line_breaks
from tmi_ops.command_texts import ends_of_commands, inserted, with_environment
from tmi_ops.progress import Phase, Unit
from tmi_ops.text import format_duration, format_size, printable

T = TypeVar("T")

__all__ = ["TerminalReport", "err", "format_age", "format_duration", "format_size", "in_columns", "out"]

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400


def _styled_as_typed(text: Text) -> Text:
    name = carried()
    ends = ends_of_commands(text.plain) if name else []
    if name is None or not ends:
        return text
    changed = text.blank_copy(with_environment(text.plain, name))

    def moved(offset: int) -> int:
        return offset + len(inserted(name)) * sum(end <= offset for end in ends)

    changed.spans = [Span(moved(span.start), moved(span.end), span.style) for span in text.spans]
    return changed


def _as_typed(renderable: RenderableType) -> RenderableType:
    if isinstance(renderable, Text):
        return _styled_as_typed(renderable)
    if isinstance(renderable, Table):  # before it is measured
        for column in renderable.columns:
            column._cells = [_as_typed(cell) for cell in column.cells]
    return as_typed(renderable) if isinstance(renderable, str) else renderable


class SafeConsole(Console):
    """A console that escapes control sequences in text; only Rich's own reach the terminal. Commands that it prints
    name the environment."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(_as_typed(renderable), options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

    def say(self, text: str | Text, *, style: str = "", hang: int | None = None) -> None:
        """Print prose (Rich markup in a `str`). On a terminal it is wrapped with a hanging indent, but never inside a
        command in backquotes; in a file or a pipe it is not wrapped. `hang`: columns; None: below the text after a
        label.
        """
        whole = _styled_as_typed(Text.from_markup(text, style=style) if isinstance(text, str) else text)
        for line in whole.split("\n", allow_blank=True) or [whole]:
            for piece in self._hung(line, hang) if self.is_terminal else [line]:
                self.print(piece, soft_wrap=True)

    def show_typed(self, line: str | Text) -> None:
        """Print SQL or a command whole, so that it can be copied. On a terminal that is too narrow for it, its comment
        goes above it, wrapped.
        """
        whole = _styled_as_typed(Text(line) if isinstance(line, str) else line)
        begin, mark = comment_of(whole.plain)
        if not self.is_terminal or len(whole) <= self.width or not mark:
            self.print(whole, soft_wrap=True)
            return
        typed, comment = whole[:begin], whole[begin:]
        indent = Text(whole.plain[: len(whole.plain) - len(whole.plain.lstrip())])
        head = indent + Text(f"{mark} ")
        breaks = line_breaks(comment.plain, self.width - len(head), 0)
        for number, piece in enumerate(comment.divide(breaks)):
            piece.rstrip()
            self.print((head if number else indent) + piece, soft_wrap=True)
        if typed.plain.strip():
            typed.rstrip()
            self.print(typed, soft_wrap=True)

    def _hung(self, line: Text, hang: int | None) -> Iterator[Text]:
        columns = hanging(line.plain, self.width // 2) if hang is None else hang
        first, *rest = line.divide(line_breaks(line.plain, self.width, columns))
        first.rstrip()
        yield first
        for piece in rest:
            piece.rstrip()
            yield Text(" " * columns) + piece

    @property
    def file(self) -> IO[str]:
        stream = super().file
        unfiltered: IO[str] = getattr(stream, "unescaped", stream)
        return unfiltered

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


out = SafeConsole(highlight=False)
err = SafeConsole(stderr=True, highlight=False)


def first_of(items: Sequence[T], limit: int) -> tuple[Sequence[T], str]:
    """The first `limit` items, and a line with the number of the others; empty if there are none."""
    more = len(items) - limit
    return items[:limit], f"and {more:,} more (--json shows all)" if more > 0 else ""


def format_age(moment: datetime) -> str:
    """How long ago, in one unit: '3 h ago'."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, length in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


class _Amount(TextColumn):
    """Done and, if known, total, in the phase's unit."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if unit == "bytes":
            done = format_size(task.completed)
            whole = format_size(task.total) if task.total else ""
        else:
            done = f"{task.completed:,.0f}"
            whole = f"{task.total:,.0f} {unit}" if task.total else unit
        return Text(f"{done} / {whole}" if task.total else f"{done} {'' if unit == 'bytes' else whole}".strip())


class _BarPhase:
    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: float) -> None:
        self._progress.advance(self._task, amount)


class TerminalReport:
    """A Report that draws bars on stderr; stdout is for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            _Amount(),
            TimeElapsedColumn(),
            console=err,
            disable=quiet,
        )

    @contextmanager
    def running(self) -> Iterator[TerminalReport]:
        """Draw during a `with` block."""
        with self._progress:
            yield self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing during a `with` block, for a question. Finished phases are not drawn again."""
        self._progress.stop()
        for task in self._progress.tasks:
            if task.finished:
                self._progress.remove_task(task.id)
        try:
            yield
        finally:
            self._progress.start()

    @contextmanager
    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> Iterator[Phase]:
        task = self._progress.add_task(name, total=total, unit=unit)
        try:
            yield _BarPhase(self._progress, task)
        except BaseException:
            self._progress.update(task, description=f"[red]{name} (failed)[/]")
            self._progress.stop_task(task)
            raise
        done = self._progress.tasks[self._progress.task_ids.index(task)].completed
        self._progress.update(task, total=max(done, total or 0, 1), completed=max(done, total or 0, 1))

    def note(self, message: str) -> None:
        err.say(f"  {message}", hang=2)


def in_columns(rows: Sequence[Sequence[str]], right: Collection[int] = (), gap: int = 2) -> list[str]:
    """A line for each row, with its cells below each other, as wide as a terminal shows them. Pure.

    Args:
        right: the columns that are set to the right.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]

    def padded(number: int, cell: str) -> str:
        room = " " * (widths[number] - cell_len(cell))
        return room + cell if number in right else cell + room

    return [(" " * gap).join(padded(number, cell) for number, cell in enumerate(row)) for row in shown]
