"""PostgreSQL: any number of instances on one database."""

from promptpipe.storage.postgres.store import PostgresConfig, check_schema, migrate_postgres, open_postgres_store

__all__ = ["PostgresConfig", "check_schema", "migrate_postgres", "open_postgres_store"]
