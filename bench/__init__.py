"""``make bench``: the benchmark of this server against the floors of the machine (docs/explanation/performance.md)."""
