"""Servers started for one run and removed after it: PostgreSQL, PgBouncer, SurrealDB."""
