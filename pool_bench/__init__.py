"""Connection benchmarking and load generation for PostgreSQL, SurrealDB and what stands in front of them."""

__version__ = "0.1.0"
