"""Telemetry: logs, metrics, spans, and the ids that correlate them.

- ``meters``: every metric; ``instruments``, ``labels``, ``shared_buffer``: how they count across workers
- ``process_metrics``, ``tool_calls``: what is measured here
- ``snapshot``: all of it in the data model of OpenTelemetry's SDK, which both exporters take
- ``prometheus_page``: the response of ``/metrics``
- ``tracing``, ``trace_context``: spans and the current request, run and span
- ``otlp_export``, ``otlp_encoding``: export by OTLP, imported only if an endpoint is set
- ``opentelemetry_api``: spans of the code of agents join our traces
- ``opentelemetry_internals``: everything that leans on private parts of OpenTelemetry
- ``logs``, ``line_writer``: structured logs that never block
"""
