"""What Linux tells of this machine: processes, cores, memory, sockets, queues, limits."""
