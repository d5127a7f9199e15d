from __future__ import annotations

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.backup.one_at_a_time import BackupRunningError, only_backup
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import open_store


def test_a_second_backup_of_a_database_is_refused_by_the_holders_name_and_comes_through_once_the_first_is_done(
    settings: Settings,
) -> None:
    store = open_store(settings.store, settings.environment)
    with only_backup(settings.postgres):
        with pytest.raises(BackupRunningError, match=r"is running \(pid \d+, user ") as refused:
            back_up_logical(settings, store, "custom", SilentReport())
        with pytest.raises(BackupRunningError):
            back_up_base(settings, store, SilentReport())
        assert refused.value.transient
        assert not list(store.list_objects(""))
    assert back_up_logical(settings, store, "custom", SilentReport()).backup_id


def test_another_database_of_the_same_server_is_nobodys_concern(
    database: PostgresSettings, server: PostgresSettings
) -> None:
    with only_backup(database), only_backup(server):
        pass


def test_a_role_that_may_replicate_but_not_connect_backs_up_without_the_lock(database: PostgresSettings) -> None:
    nobody = database.model_copy(update={"user": "nobody_at_all"})
    with only_backup(nobody, may_be_refused=True):
        pass
