"""Health, information, metrics, administration.

- ``controller``: HTTP routes of health, information, metrics and secrets
- ``audit_controller``: HTTP routes of the audit log
- ``operation_controller``, ``operation``: usage and prices, the queue, the workers, the configuration in effect
- ``service``: health of this process
- ``readiness``: readiness state
- ``database_probe``: background probe of the database
- ``collectors``: gauges of status and storage
- ``queries``: SQL
- ``structs``: wire shapes
"""
