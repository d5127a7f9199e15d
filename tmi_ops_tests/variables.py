"""Settings as a process of its own is given them: by variables alone."""

from __future__ import annotations

import os

from tmi_ops.settings import PostgresSettings, Settings


def postgres_variables(postgres: PostgresSettings) -> dict[str, str]:
    """The guide's variables of a database."""
    assert postgres.password is not None
    return {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "POSTGRES_DB": postgres.database,
        "POSTGRES_SSLMODE": postgres.sslmode,
    }


def variables_of(settings: Settings) -> dict[str, str]:
    """Every variable that `load_settings` needs to come to the same settings, and PATH."""
    store = settings.store
    assert store.access_key_id is not None
    assert store.secret_access_key is not None
    return {
        "PATH": os.environ["PATH"],
        "TMI_ENV": settings.environment,
        **postgres_variables(settings.postgres),
        "TMI_OPS_S3_ENDPOINT_URL": store.endpoint_url or "",
        "TMI_OPS_S3_BUCKET": store.bucket or "",
        "TMI_OPS_S3_PREFIX": store.prefix,
        "TMI_OPS_S3_ACCESS_KEY_ID": store.access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": store.secret_access_key.get_secret_value(),
        "TMI_OPS_HOME": str(settings.home),
    }
