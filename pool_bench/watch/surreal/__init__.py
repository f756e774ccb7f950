"""What the kernel tells of a SurrealDB's process, which itself is asked nothing."""
