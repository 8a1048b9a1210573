"""Telemetry: logs, metrics, spans, and the ids that correlate them."""
