"""Mixed load for minutes or hours, with faults at a low rate: what a server holds afterwards, and whether it grows."""
