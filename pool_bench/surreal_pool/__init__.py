"""A pool of official SurrealDB clients: the reference pool with what SurrealDB's sessions need."""

from pool_bench.surreal_pool.pool import SurrealDBConnectionPool

__all__ = ["SurrealDBConnectionPool"]
