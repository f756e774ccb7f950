"""Which server a command means: one that was named, by option or environment, or an embedded one."""
