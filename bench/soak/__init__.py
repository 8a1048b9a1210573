"""Mixed load for minutes or hours, with faults at a low rate: resource usage afterwards, and leaks."""
