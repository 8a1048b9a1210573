"""Health, information, metrics, administration.

- ``controller``: HTTP routes of health, information, metrics and secrets
- ``audit_controller``: HTTP routes of the audit log
- ``service``: health of this process
- ``readiness``: readiness state
- ``database_probe``: background probe of the database
- ``collectors``: gauges of status and storage
- ``queries``: SQL
- ``structs``: wire shapes
"""
