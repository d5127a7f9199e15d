"""Where a restored cluster's files go, and who owns them: tablespaces, from an encrypted store."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import ProgramError, RecoveryError, StoreError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import ServerIdentity, can_run
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.destination import Destination, require_vacant
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.physical import FIRST_TO_SUMMARIZE, make_place, physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.conftest import (
    KEEPS_WAL,
    RESTORE_POINT,
    Moment,
    make_ledger,
    own_store,
    write,
)
from tmi_ops_tests.recovery.point_in_time.restoring import plan_to, restore, rows, started, value
from tmi_ops_tests.store.conftest import make_age_keys, with_age


@dataclass(frozen=True)
class Spread:
    """An encrypted store with two backups of a cluster with a tablespace at `place`.

    `moment` lies before the restore point, `rows` are those at the end. `chain` is how many a restore takes: before 17
    the second is full, too.
    """

    settings: Settings
    place: Path
    moment: Moment
    rows: int
    chain: int


@pytest.fixture(scope="module")
def spread(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Spread]:
    root = tmp_path_factory.mktemp("spread")
    store_settings = with_age(own_store(s3, shared_bucket), make_age_keys(root / "key.txt"))
    with physical_cluster(programs, root, KEEPS_WAL) as cluster:
        place = make_place(root / "a = place", cluster)
        settings = settings_for(cluster.address, store_settings, root / "home")
        store = open_store(store_settings, settings.environment)
        with connect(cluster.address) as connection:
            connection.execute(f"CREATE TABLESPACE fast LOCATION '{place}'")
            connection.execute("CREATE TABLE there TABLESPACE fast AS SELECT generate_series(1, 1000) AS i")
        make_ledger(cluster.address)
        back_up_base(settings, store, SilentReport())
        with connect(cluster.address) as connection:
            connection.execute("UPDATE there SET i = i + 1 WHERE i <= 10")
        second = back_up_base(settings, store, SilentReport(), incremental=True)
        chain = 2 if programs.major >= FIRST_TO_SUMMARIZE else 1
        assert len(second.chain) + 1 == chain
        moment = write(cluster.address)
        with connect(cluster.address) as connection:
            connection.execute("SELECT pg_create_restore_point(%s)", [RESTORE_POINT])
        last = write(cluster.address)
        archive_wal(cluster, store, close_segment=False)
        yield Spread(settings, place, moment, last.rows, chain)


@pytest.mark.slow
def test_an_encrypted_chain_with_a_tablespace_comes_back_with_the_tablespace_in_its_new_place(
    spread: Spread, directory: Path
) -> None:
    new_place = directory.parent / "new = place"
    recovered = restore(spread.settings, Target(), Destination(directory, {str(spread.place): new_place}))
    assert len(recovered.plan.chain) == spread.chain
    with started(directory, spread.settings.postgres) as cluster:
        assert rows(cluster.address) == spread.rows
        assert value(cluster.address, "SELECT sum(i) FROM there") == 500510
        assert value(
            cluster.address, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"
        ) == (str(new_place))
    assert not list(spread.place.parent.glob("**/.tmi-ops-recovery"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["time", "lsn", "name"])
def test_an_encrypted_store_leads_to_every_kind_of_target(spread: Spread, directory: Path, kind: str) -> None:
    targets = {
        "time": Target(time=spread.moment.time),
        "lsn": Target(lsn=spread.moment.lsn),
        "name": Target(name=RESTORE_POINT),
    }
    destination = Destination(directory, tablespace_root=directory.parent / "tablespaces")
    restore(spread.settings, targets[kind], destination)
    with started(directory, spread.settings.postgres) as cluster:
        assert rows(cluster.address) == spread.moment.rows


@pytest.mark.slow
def test_a_chain_puts_tablespaces_below_the_data_directory_where_nothing_is_said(
    spread: Spread, directory: Path
) -> None:
    restore(spread.settings, Target(), directory)
    with started(directory, spread.settings.postgres) as cluster:
        assert value(cluster.address, "SELECT sum(i) FROM there") == 500510
        location = value(
            cluster.address, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"
        )
        assert Path(str(location)).is_relative_to(directory / "tablespaces")


@pytest.mark.slow
def test_a_full_backup_alone_puts_tablespaces_below_a_root_when_told_so(spread: Spread, directory: Path) -> None:
    root = directory.parent / "tablespaces"
    plan = plan_to(open_store(spread.settings.store, "development"), Target(), spread.settings.home / "scratch")
    destination = Destination(directory, tablespace_root=root)
    restore(spread.settings, Target(), destination, base=plan.chain[0].backup_id)
    (tablespace,) = plan.base.tablespaces
    assert list((root / tablespace.oid).iterdir())
    with started(directory, spread.settings.postgres) as cluster:
        assert value(cluster.address, "SELECT sum(i) FROM there") == 500510


def test_without_the_private_key_the_error_says_so_and_nothing_is_left(spread: Spread, directory: Path) -> None:
    store = spread.settings.store.model_copy(update={"age_identity_file": None})
    settings = spread.settings.model_copy(update={"store": store})
    with pytest.raises(StoreError, match="encrypted and no private key is configured"):
        restore(settings, Target(), Destination(directory, tablespace_root=directory.parent / "tablespaces"))
    assert [path.name for path in directory.parent.iterdir()] == []


@pytest.fixture
def plan(spread: Spread) -> RecoveryPlan:
    return plan_to(open_store(spread.settings.store, "development"), Target(), spread.settings.home / "scratch")


def test_a_tablespace_goes_below_the_data_directory_and_to_its_old_place_only_when_told_and_when_that_is_empty(
    spread: Spread, plan: RecoveryPlan, directory: Path
) -> None:
    require_vacant(plan, Destination(directory))
    (oid,) = [item.oid for item in plan.base.tablespaces]
    assert Destination(directory).places(plan.base) == {oid: directory / "tablespaces" / oid}
    with pytest.raises(RecoveryError, match="is not empty") as caught:
        require_vacant(plan, Destination(directory, {str(spread.place): spread.place}))
    assert f"--tablespace-mapping {spread.place}=NEW" in caught.value.hint


def test_a_mapping_of_a_place_that_the_backup_does_not_know_is_refused(plan: RecoveryPlan, directory: Path) -> None:
    with pytest.raises(RecoveryError, match=r"has no tablespace at /nowhere; its tablespaces: .*a = place"):
        require_vacant(plan, Destination(directory, {"/nowhere": directory.parent / "x"}))


def test_a_tablespace_inside_the_data_directory_is_refused(spread: Spread, plan: RecoveryPlan, directory: Path) -> None:
    with pytest.raises(RecoveryError, match="lies inside another directory of the same cluster"):
        require_vacant(plan, Destination(directory, {str(spread.place): directory / "x"}))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may restore for somebody else")
def test_as_root_the_files_belong_to_the_owner_of_the_directory(
    spread: Spread, plan: RecoveryPlan, directory: Path, programs: Programs
) -> None:
    directory.mkdir()
    owner = pwd.getpwnam("daemon")
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    root = directory.parent / "tablespaces"
    if not can_run(ServerIdentity(user="daemon"), programs.path("postgres"), directory):
        with pytest.raises(ProgramError, match="belongs to daemon, who cannot run"):
            restore(spread.settings, Target(), Destination(directory, tablespace_root=root))
        return
    restore(spread.settings, Target(), Destination(directory, tablespace_root=root))
    owners = {path.lstat().st_uid for place in (directory, root) for path in place.rglob("*")}
    assert owners == {owner.pw_uid}


# PostgreSQL 15 leaves them out of its base backups.
FIRST_TO_BACK_UP_IN_PLACE = 16


@pytest.mark.slow
def test_tablespaces_made_and_dropped_after_the_base_and_those_in_the_data_directory_come_back_where_they_belong(
    programs: Programs, s3: StoreSettings, shared_bucket: str, directory: Path
) -> None:
    root = directory.parent / "living"
    root.mkdir()
    with physical_cluster(programs, root, KEEPS_WAL) as cluster:
        settings = settings_for(cluster.address, own_store(s3, shared_bucket), root / "home")
        store = open_store(settings.store, settings.environment)
        with connect(cluster.address) as connection:
            space = "pg_default"
            if programs.major >= FIRST_TO_BACK_UP_IN_PLACE:
                space = "inside"
                connection.execute("SET allow_in_place_tablespaces = on")
                connection.execute("CREATE TABLESPACE inside LOCATION ''")
            connection.execute(f"CREATE TABLE within TABLESPACE {space} AS SELECT generate_series(1, 100) AS i")
        back_up_base(settings, store, SilentReport())
        back_up_base(settings, store, SilentReport(), incremental=True)
        for name in ("first", "second"):
            place = make_place(root / name, cluster)
            with connect(cluster.address) as connection:
                connection.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
                connection.execute(f"CREATE TABLE passing TABLESPACE {name} AS SELECT generate_series(1, 10) AS i")
                connection.execute("DROP TABLE passing")
                connection.execute(f"DROP TABLESPACE {name}")
        archive_wal(cluster, store)
        restore(settings, Target(), directory)
        left = list((directory / "pg_tblspc").iterdir())
        assert len(left) == (space == "inside"), "what was made and dropped is gone"
        assert all(path.is_dir() and not path.is_symlink() for path in left)
        assert not (directory / "tablespaces").exists()
        with started(directory, settings.postgres) as running:
            assert value(running.address, "SELECT count(*) FROM within") == 100
            assert value(running.address, "SELECT count(*) FROM pg_tablespace") == 2 + len(left)


def test_a_dangling_link_and_the_inside_of_another_cluster_are_refused(plan: RecoveryPlan, directory: Path) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory.parent / "nowhere")
    for place in (link, link / "below"):
        with pytest.raises(RecoveryError, match=r"is a link to .*nowhere, which does not exist"):
            require_vacant(plan, Destination(place))
    living = directory.parent / "living"
    living.mkdir()
    (living / "PG_VERSION").write_text("17")
    for place in (living / "new", living / "some" / "where"):
        with pytest.raises(RecoveryError, match=f"lies inside {living}, the data directory of another cluster"):
            require_vacant(plan, Destination(place))
    with pytest.raises(RecoveryError, match="lies inside"):
        require_vacant(plan, Destination(directory, tablespace_root=living / "tablespaces"))


@pytest.mark.slow
def test_a_tablespace_of_the_living_server_that_only_the_wal_knows_is_not_written_over(
    programs: Programs, s3: StoreSettings, shared_bucket: str, directory: Path
) -> None:
    """Both servers lie side by side, so that the same account runs them."""
    root = directory.parent / "living"
    root.mkdir()
    with physical_cluster(programs, root, KEEPS_WAL) as cluster:
        settings = settings_for(cluster.address, own_store(s3, shared_bucket), root / "home")
        store = open_store(settings.store, settings.environment)
        back_up_base(settings, store, SilentReport())
        place = make_place(root / "later", cluster)
        with connect(cluster.address) as connection:
            connection.execute(f"CREATE TABLESPACE later LOCATION '{place}'")
            connection.execute("CREATE TABLE there TABLESPACE later AS SELECT generate_series(1, 1000) AS i")
            connection.execute("CHECKPOINT")
            row = connection.execute("SELECT pg_relation_filepath('there')").fetchone()
        assert row is not None
        archive_wal(cluster, store)
        file = cluster.directory / row[0]
        damaged = b"\xa5" * 200 + file.read_bytes()[200:]
        file.write_bytes(damaged)
        restore(settings, Target(), directory)
        assert file.read_bytes() == damaged, "what the living server has is as it was"
        with started(directory, settings.postgres) as recovered:
            assert value(recovered.address, "SELECT count(*) FROM there") == 1000
            location = value(
                recovered.address, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 9999"
            )
            assert str(location).startswith(f"{directory}/tablespaces/")
        shutil.rmtree(directory)
        place.rename(root / "kept")
        make_place(place, cluster)
        restore(settings, Target(), Destination(directory, {str(place): place}))
        with started(directory, settings.postgres) as recovered:
            assert value(recovered.address, "SELECT count(*) FROM there") == 1000
