"""Crons: runs on a schedule.

- ``controller``: HTTP routes
- ``service``: use cases
- ``schedule``: cron expressions in time zones
- ``scheduler``: starts the runs that are due
- ``queries``: SQL
- ``tables``: tables
- ``structs``: wire shapes
"""
