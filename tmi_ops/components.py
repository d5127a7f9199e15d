"""Dagster components, for the `defs.yaml` of other projects."""

import zlib
from collections.abc import Mapping

from dagster import Component, ComponentLoadContext, Definitions, Model, Resolvable
from pydantic import Field

from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.serving import definitions_of
from tmi_ops.settings import declare

Value = str | int | float | bool | list[str]


class ProtectedDatabase(Component, Resolvable, Model):
    """One PostgreSQL database and its cluster: backups, WAL, verification, drills, health and guards of its objectives.

    The names of its assets, jobs, schedules and sensors begin with its name: `shop/backup/logical`,
    `shop__logical_backup`.
    """

    name: str = Field(description="Name of the environment: first part of its asset keys, and folder in the store.")
    settings: Mapping[str, Value] | None = Field(
        default=None,
        description="Settings by the names of the variables (README). Give a secret as a file (NAME_FILE) or as a "
        "variable of the process (NAME_ENV). Default: tmi-ops.toml or the process's variables.",
    )

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Connects to nothing and reads no secret.

        Raises:
            SettingsError: the name or a setting is invalid, or a secret is given in clear text.
        """
        of = self.name if self.settings is None else declare(self.name, self.settings, context.path / "defs.yaml")
        # The other components are not known here, so the name decides by how much its schedules are shifted.
        return definitions_of([protected(of).at_place(zlib.crc32(self.name.encode()))])
