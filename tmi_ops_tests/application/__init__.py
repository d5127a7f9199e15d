"""A small application that behaves towards its database and its cache as TMI does, to be looked at during a disaster.

It is a process of its own with the app role. It writes threat models, threats and audit entries all the time and keeps
a journal of what the database acknowledged; it reads threat models through `cache:threat_model:*`; it signs users in
(`session:*`, `refresh_token:*`) and revokes their tokens (`blacklist:token:*`). Whatever it is connected to may go
away: it comes back by itself, by the connection strings that its env file then holds.

    with running_application(tmp_path, postgres=app_role, redis=redis) as app:
        app.wait_for_writes(50)
        alice = app.sign_in()
        app.revoke(alice)
        moment = datetime.now(UTC)
        app.wait_for_writes(50)
        ...                                  # the disaster and the recovery to `moment`; hooks may use
        ...                                  # app.stop_command, app.start_command and app.health_url
        app.connect_to(postgres=recovered)   # where the recovery did not write app.env_file itself
        app.start()                          # or app.start_command: reads the env file again, writes on
        app.wait_for_writes(10)
        assert app.missing(recovered, before=moment) == []
        assert app.present(recovered, after=moment, until=disaster) == []
        assert app.stale_reads(recovered) == []
        assert not app.accepts(alice)

The database needs TMI's schema; the role needs what the declared app role has.
"""

from tmi_ops_tests.application.driving import Application, running_application
from tmi_ops_tests.application.journal import Row, Write
from tmi_ops_tests.application.tokens import SignedIn

__all__ = ["Application", "Row", "SignedIn", "Write", "running_application"]
