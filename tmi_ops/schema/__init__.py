"""What the database must look like: models, migration, validation, seed rows."""
