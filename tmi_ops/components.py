"""Dagster components, for other Dagster projects to declare in a `defs.yaml`."""

import zlib
from collections.abc import Mapping

from dagster import Component, ComponentLoadContext, Definitions, Model, Resolvable
from pydantic import Field

from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.serving import definitions_of
from tmi_ops.settings import declare

Value = str | int | float | bool | list[str]


class ProtectedDatabase(Component, Resolvable, Model):
    """A PostgreSQL database and its cluster: backups, WAL, verification, drills, health, and guards of its objectives.

    The names of its assets, jobs, schedules and sensors start with its name: `shop/backup/logical`,
    `shop__logical_backup`.
    """

    name: str = Field(description="The environment: the first part of its asset keys, and its folder in the store.")
    settings: Mapping[str, Value] | None = Field(
        default=None,
        description="Settings by the names of the variables (README). Give a secret as a file, NAME_FILE, or as an "
        "environment variable, NAME_ENV. None: settings are read from tmi-ops.toml or the process.",
    )

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Build the definitions. Opens no connection and reads no secret.

        Raises:
            SettingsError: the name or a setting is unknown, or a secret is in the clear.
        """
        of = self.name if self.settings is None else declare(self.name, self.settings, context.path / "defs.yaml")
        # The other components are unknown, so the minute at which its schedules start is derived from its name.
        return definitions_of([protected(of).at_place(zlib.crc32(self.name.encode()))])
