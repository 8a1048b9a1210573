"""Crons: runs on a schedule.

- ``controller.py``: HTTP routes
- ``service.py``: use cases
- ``schedule.py``: cron expressions in time zones
- ``scheduler.py``: starts the runs that are due
- ``queries.py``: SQL
- ``tables.py``: tables
- ``structs.py``: wire shapes
"""
