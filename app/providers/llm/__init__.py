"""Language models.

- ``adapters``: wire formats of vendors
- ``billing``: charge model calls to the run that made them, even if they are cancelled or fail
- ``cached_answer``: cached answers
- ``demo``: replies of ``scripted:demo``
- ``failover``: failover chain of models
- ``instrumented``: model wrapper that records metrics and spans (OpenTelemetry GenAI semantic conventions)
- ``port``: the language model port
- ``profiles``: profiles of providers and models
- ``registry``: registry of models by name (``vendor:model``) and of their vendors
- ``response_cache``: model wrapper with a response cache and single flight for identical requests
- ``scripted``: scripted models
- ``token_estimate``: estimate tokens of messages without vendor tables, erring on the high side
- ``vendors``: the vendors, one row each: settings, defaults and adapter
- ``vendor_health``: health of a vendor in this process
"""
