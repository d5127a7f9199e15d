"""The request as the journal stores it: enough to select the same rows again in another process."""

from __future__ import annotations

from datetime import datetime

from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.past import Moment
from tmi_ops.rescue.selection import Policy, Selection, SetColumns, TableColumn, TableRows
from tmi_ops.runbooks.plan import Fact


class RequestedRows(Fact):
    """See `TableRows`."""

    table: str
    where: str | None = None
    key: tuple[str, ...] | None = None


class RequestedColumn(Fact):
    """See `TableColumn`."""

    table: str
    column: str


class RequestedValues(Fact):
    """See `SetColumns`."""

    table: str
    columns: tuple[str, ...]


class RowsRequest(Fact):
    """The past, the rows or columns, and the digest of the plan that was confirmed."""

    time: datetime | None = None
    lsn: int | None = None
    name: str | None = None
    inclusive: bool = True
    backup: str | None = None
    shadow: bool = False
    rows: tuple[RequestedRows, ...] = ()
    columns: tuple[RequestedColumn, ...] = ()
    with_children: bool = True
    policy: Policy = "stop"
    accept_triggers: bool = False
    values: RequestedValues | None = None
    digest: str

    @property
    def moment(self) -> Moment:
        if self.backup is not None:
            return Moment(backup=self.backup)
        target = Target(self.time, self.lsn, self.name, self.inclusive)
        if self.shadow:
            return Moment(None if target == Target() else target, shadow=True)
        return Moment(target)

    @property
    def selection(self) -> Selection:
        rows = tuple(TableRows(one.table, one.where, one.key) for one in self.rows)
        columns = tuple(TableColumn(one.table, one.column) for one in self.columns)
        values = SetColumns(self.values.table, self.values.columns) if self.values else None
        return Selection(rows, columns, self.with_children, self.policy, self.accept_triggers, values)


def request_of(moment: Moment, selection: Selection, digest: str) -> RowsRequest:
    """The stored form of a request."""
    target = moment.target or Target()
    return RowsRequest(
        time=target.time,
        lsn=target.lsn,
        name=target.name,
        inclusive=target.inclusive,
        backup=moment.backup,
        shadow=moment.shadow,
        rows=tuple(RequestedRows(table=one.table, where=one.where, key=one.key) for one in selection.rows),
        columns=tuple(RequestedColumn(table=one.table, column=one.column) for one in selection.columns),
        with_children=selection.with_children,
        policy=selection.policy,
        accept_triggers=selection.accept_triggers,
        values=selection.values and RequestedValues(table=selection.values.table, columns=selection.values.columns),
        digest=digest,
    )
