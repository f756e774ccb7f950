"""What a PostgreSQL and a PgBouncer tell of themselves when asked; each question has a deadline."""
