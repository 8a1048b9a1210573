"""Health, information, metrics, administration.

- ``controller.py``: HTTP routes of health, information, metrics and secrets
- ``audit_controller.py``: HTTP routes of the audit log
- ``not_implemented.py``: known routes that answer 501
- ``service.py``: health of this process
- ``readiness.py``: readiness state
- ``database_probe.py``: background probe of the database
- ``collectors.py``: gauges of status and storage
- ``queries.py``: SQL
- ``structs.py``: wire shapes
"""
