"""How a status looks in a terminal: RPO and RTO, what they are based on, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tmi_ops.automation.naming import plain_name
from tmi_ops.checks.finding import Severity
from tmi_ops.cli.status_health import findings_of, last_looks
from tmi_ops.cli.status_marks import MARKS, ago
from tmi_ops.objectives.acting import Topic
from tmi_ops.objectives.by_shadow import describe_shadow
from tmi_ops.objectives.cures import Cure
from tmi_ops.objectives.history import Worst
from tmi_ops.objectives.next_runs import Automatic
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.status import Recoverability, Status
from tmi_ops.objectives.store_usage import total_of
from tmi_ops.text import format_duration, format_size

_RUNS_SHOWN = 4
_FINDINGS_SHOWN = 12
_CURES_SHOWN = 2
_WHOLE = 0.995  # the measured share of a day never reaches 1
_BASES = {"measured": "forecast", "measured in part": "forecast, partly assumed", "assumed": "assumed speeds"}
_NOT_MEASURED = "not measured"


def status_screen(status: Status) -> RenderableType:
    """The screen, as wide as the terminal."""
    head = Text.assemble((status.environment, "bold"), f"  {status.database}  {status.at.astimezone(UTC):%F %T} UTC")
    promises = Table.grid(padding=(0, 2))
    lines = Table.grid(padding=(0, 2))
    for table in (promises, lines):
        table.add_column(no_wrap=True)
    promises.add_column(no_wrap=True)
    promises.add_column(no_wrap=True)
    for row in _promises(status):
        promises.add_row(*row)
    for label, said in _lines(status):
        lines.add_row(Text(label, style="bold"), said)
    parts: list[RenderableType] = [head, Text(status.store, style="dim"), Text(), promises, Text(), lines]
    findings = list(_findings(status))
    if findings:
        parts += [Text(), Text("To do", style="bold"), *findings[:_FINDINGS_SHOWN]]
        if len(findings) > _FINDINGS_SHOWN:
            parts.append(Text(f"and {len(findings) - _FINDINGS_SHOWN} more (--json shows all)", style="dim"))
    return Group(*parts)


def _promises(status: Status) -> Iterator[tuple[Text, Text, Text, Text]]:
    found = status.recoverability
    if found is None:
        for name in ("RPO", "RTO"):
            yield _mark(Standing.UNKNOWN, name), Text("unknown"), Text(), Text("the store could not be read")
        return
    rpo, rto = found.rpo, found.rto
    yield _promise("RPO", rpo.standing, rpo.value, rpo.objective, _past(found))
    measured = "no drill yet"
    if rto.last_drill is not None:
        measured = f"last drill {_span(rto.last_drill.rto)}, {ago(rto.last_drill.at, status.at)}"
    yield _promise("RTO", rto.standing, rto.value, rto.objective, f"{_BASES[rto.basis]}; {measured}")


def _promise(
    name: str, standing: Standing, value: timedelta | None, objective: timedelta, more: str
) -> tuple[Text, Text, Text, Text]:
    style = MARKS[standing][1]
    said = Text(_span(value) if value is not None else "unknown", style=style)
    return _mark(standing, name), said, Text(f"of {_span(objective)}"), Text(f"{standing.value}; {more}")


def _past(found: Recoverability) -> str:
    if found.worst_month.measured == timedelta(0):
        return "no earlier measurements"
    return f"worst in 24 h {_worst(found.worst_day)}, in 30 d {_worst(found.worst_month)}"


def _worst(worst: Worst) -> str:
    if worst.measured == timedelta(0):
        return _NOT_MEASURED
    if worst.unverified > timedelta(0):
        return f"nothing verified for {_span(worst.unverified)}"
    share = worst.measured / worst.over
    return _span(worst.value or timedelta(0)) + ("" if share >= _WHOLE else f" ({_share(share)} measured)")


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def _lines(status: Status) -> Iterator[tuple[str, Text]]:
    found = status.recoverability
    if found is None:
        yield "Store", Text(f"could not be read: {status.store_problem}", style="red")
    else:
        yield from _recoverable(found, status.at)
    if status.database_problem:
        yield "Database", Text(f"could not be queried: {status.database_problem}", style="red")
    elif found is not None:
        yield "WAL stream", _stream(found)
    else:
        yield "Database", Text("reachable")
    yield "Next runs", _next_runs(status.automatic, status.at)
    if found is not None:
        yield "Storage", Text(_storage(found))
    yield from last_looks(status)
    yield "Alerts", _alerts(status)


def _recoverable(found: Recoverability, now: datetime) -> Iterator[tuple[str, Text]]:
    facts = found.facts
    if facts.earliest_at is not None:
        yield "Back to", Text(f"{_moment(facts.earliest_at, now)}, and any moment since")
    elif facts.oldest_backup_at is not None:
        yield "Back to", Text(f"{_moment(facts.oldest_backup_at, now)}, to the moments of backups only")
    reach = facts.newest
    if reach is None:
        yield "Up to", Text("nothing: there is no backup", style="bold red")
    else:
        proof = ("verified", "green") if reach.verified else ("not verified", "yellow")
        means = {"WAL": " plus WAL", "base backup": "", "logical backup": ""}[reach.means]
        yield "Up to", Text.assemble(f"{_moment(reach.at, now)} from {reach.backup_id}{means}, ", proof)
        if facts.verified is not None and facts.verified != reach:
            yield "Verified", Text(f"{_moment(facts.verified.at, now)} from {facts.verified.backup_id}")
    if facts.shadow is not None:
        well = facts.shadow.stopped is None and facts.shadow.damage is None
        yield "Shadow", Text(describe_shadow(facts.shadow, facts.server_now), style="" if well else "red")
    if found.dumps is not None:
        yield "Dumps", Text(found.dumps.reason, style=MARKS[found.dumps.standing][1])
    last = facts.last_verification
    if last is None:
        yield "Last verified", Text("none: no backup has been verified", style="bold red")
    else:
        yield (
            "Last verified",
            Text(f"{last.backup_id}, {ago(last.at, now)}; restored in {_span(last.restore)}"),
        )


def _stream(found: Recoverability) -> Text:
    stream = found.stream
    behind = "" if stream.behind is None else f"{format_size(stream.behind)} behind the server. "
    return Text.assemble((MARKS[stream.standing][0], MARKS[stream.standing][1]), f" {behind}{stream.reason}")


def _next_runs(automatic: Automatic, now: datetime) -> Text:
    said = Text()
    if automatic.runs:
        soonest = [f"{_called(run.schedule)} {_in(run.at, now)}" for run in automatic.runs[:_RUNS_SHOWN]]
        more = len(automatic.runs) - _RUNS_SHOWN
        said.append("; ".join(soonest) + (f"; {more} more" if more > 0 else ""))
    elif automatic.problem is None:
        said.append("none: no schedule is running", style="yellow")
    if automatic.problem is not None:
        said.append(f"{'. ' if said else ''}{automatic.problem}", style="red" if automatic.stuck else "yellow")
    return said


def _called(schedule: str) -> str:
    return plain_name(schedule).replace("_", " ")


def _storage(found: Recoverability) -> str:
    usage = found.facts.storage
    total = total_of(usage)
    by_size = sorted(usage.items(), key=lambda item: -item[1].size)
    kinds = ", ".join(f"{'WAL' if kind == 'wal' else kind} {format_size(item.size)}" for kind, item in by_size)
    growth = "" if found.growth is None else f"; {_signed(found.growth)} a day"
    stored = f"; {format_size(total.added_day)} of it added in 24 h"
    return f"{format_size(total.size)} in {total.objects:,} objects: {kinds}{stored}{growth}" if kinds else "empty"


def _signed(size: float) -> str:
    return f"{'+' if size >= 0 else '-'}{format_size(abs(size))}"


def _alerts(status: Status) -> Text:
    if status.alerts is None:
        return Text("could not be read", style="yellow")
    return Text(f"{len(status.alerts)} open: tmi-ops alerts", style="red") if status.alerts else Text("none open")


def _findings(status: Status) -> Iterator[RenderableType]:
    found = status.recoverability
    if found is not None:
        for judged in status.judged:
            if judged.standing is not Standing.MET:
                yield _finding(judged.standing, judged.reason, judged.cures[:_CURES_SHOWN])
        for backup_id in found.facts.failed:
            yield _finding(Standing.AT_RISK, f"Verification of {backup_id} failed; see `tmi-ops backups`.", ())
        for problem in found.facts.problems:
            yield _finding(Standing.AT_RISK, problem, ())
    else:
        yield _finding(Standing.UNKNOWN, "The recovery window is unknown; to find out why:", (), "tmi-ops doctor")
    for broken in status.automatic.findings:
        standing = Standing.BREACHED if broken.severity is Severity.CRITICAL else Standing.AT_RISK
        yield _finding(standing, f"{broken.what[0].upper()}{broken.what[1:]}.", (), "; ".join(broken.advice.steps))
    sick = list(findings_of(status.health, status.at))
    for one in sick:
        yield _finding(one.standing, one.said, (), one.command)
    # An alert about what is judged above is not repeated: it says what was known when it was sent.
    judged_above = {*(set(Topic) if found is not None else ()), *(one.alerted_as for one in sick)}
    for record in status.alerts or ():
        if record.alert.key in judged_above:
            continue
        yield _finding(Standing.AT_RISK, f"{record.alert.summary}. To do: {record.alert.to_do}", ())


def _finding(standing: Standing, reason: str, cures: Sequence[Cure], command: str | None = None) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    said = Text(reason)
    for words in [cure.describe() for cure in cures] or ([command] if command else []):
        said.append(f"\n→ {words}", style="cyan")
    row.add_row(_mark(standing), said)
    return row


def _mark(standing: Standing, name: str = "") -> Text:
    mark, style = MARKS[standing]
    return Text.assemble((mark, style), (f" {name}" if name else "", "bold"))


def _moment(moment: datetime, now: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({ago(moment, now)})"


def _in(moment: datetime, now: datetime) -> str:
    return f"in {format_duration(max(60, round((moment - now).total_seconds() / 60) * 60))}"


def _span(span: timedelta) -> str:
    return format_duration(span.total_seconds())
