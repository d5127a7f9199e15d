"""Dagster components: what a project of somebody else's declares in a `defs.yaml`."""

import zlib
from collections.abc import Mapping

from dagster import Component, ComponentLoadContext, Definitions, Model, Resolvable
from pydantic import Field

from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.serving import definitions_of
from tmi_ops.settings import declare

Value = str | int | float | bool | list[str]


class ProtectedDatabase(Component, Resolvable, Model):
    """One PostgreSQL database and its cluster: backups, WAL, proofs, drills, health, and the guards of its objectives.

    Its assets begin with its name, and so do its jobs, schedules and sensors: `shop/backup/logical`,
    `shop__logical_backup`.
    """

    name: str = Field(description="Its environment: the first part of its asset keys, and its folder in the store.")
    settings: Mapping[str, Value] | None = Field(
        default=None,
        description="By the names of the variables (README). A secret stands in a file, NAME_FILE, or in a variable "
        "of the process, NAME_ENV. None: tmi-ops.toml or the process says how it is reached.",
    )

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Nothing is connected to, and no secret is read.

        Raises:
            SettingsError: the name or a setting means nothing, or a secret stands there in the clear.
        """
        of = self.name if self.settings is None else declare(self.name, self.settings, context.path / "defs.yaml")
        # Nobody knows the other components: where among them its schedules begin, its name says.
        return definitions_of([protected(of).at_place(zlib.crc32(self.name.encode()))])
