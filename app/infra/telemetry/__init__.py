"""Telemetry: logs, metrics, spans, and the ids that correlate them.

- ``meters``: every metric; ``instruments``, ``labels``, ``shared_buffer``: how they count across workers
- ``process_metrics``, ``tool_calls``: what is measured here; ``prometheus_page``: the response of ``/metrics``
- ``tracing``, ``trace_context``: spans and the current request, run and span
- ``otlp_export``, ``otlp_encoding``, ``snapshot``: export by OTLP, imported only if an endpoint is set
- ``logs``, ``line_writer``: structured logs that never block
"""
