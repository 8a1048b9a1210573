"""Named exceptions from the house rules (``tests/test_house.py``), each with its reason."""

# Where a first-party import may stand inside a function, and why.
DEFERRED_IMPORTS = {
    "app/cli/": "a verb imports only what it needs, so that --help is quick",
    "app/providers/embeddings/minilm.py": "numpy is imported when the first text is embedded",
    "app/agents/mcp/servers.py": "the SDK is imported when the first server is connected",
    "app/infra/telemetry/prometheus_page.py": "the SDK and its exporter are loaded by the first scrape",
    "app/server/composition/": "an adapter and its library are imported where the settings ask for it",
    "app/infra/cache/caches.py": "the same",
    "app/providers/llm/registry.py": "an HTTP client is imported when an agent names its vendor",
    "app/providers/llm/vendors.py": "an adapter is imported when an agent names its vendor",
}

# How many broad excepts a file may have, each an edge at which any error must become something else.
BROAD_EXCEPTS = {
    "app/security/access/custom_auth_handlers.py": 1,  # whatever the operator's code raises refuses the request
    "app/agents/mcp/servers.py": 1,  # whatever a probe raises, the server is tried again
    "app/agents/mcp/connection.py": 1,  # the SDK raises groups of whatever its transports raise
    "app/agents/langgraph/tools.py": 1,  # whatever a call raises beyond its tool ends the run of the graph
    "app/agents/functions/steps.py": 1,  # whatever a step raises is what it is known to have done
    "app/base/code_loader.py": 1,  # a user's module may raise anything while it is imported
    "app/agents/tool_loop/calls.py": 2,  # errors of tools go to the model, those of look-ups to a person
    "app/base/containment.py": 3,  # code of a foreign exception's class, which its text and attributes run
    # however the question fails whether the database answers, it does not; a task that cannot be made is made later
    "app/base/tasks.py": 2,
    "app/cli/child_process.py": 1,  # the parent reports what a start-up check raises
    "app/cli/main.py": 1,  # a traceback is a bug: one line tells of it
    "app/features/crons/scheduler.py": 1,  # whatever one cron raises, the others have their turn
    "app/agents/tools/worker_threads.py": 1,  # what a sync tool raises is raised where the call was made
    "app/server/parent.py": 1,  # the parent reports what a worker raises during its start
    # a page breaks in more ways than can be named; the others still say something
    "app/features/documents/extractor.py": 1,
    "app/security/limits/budgets.py": 1,  # whatever the driver raises, what was spent and used is written later
    # whatever keeps a look at the database from its answer, the database is of no use
    "app/features/system/database_probe.py": 1,
    # whatever an agent, loading its thread or writing its end raises: the run ends, or another process executes it
    "app/engine/supervisor.py": 6,
    "app/engine/queue/run_claimer.py": 1,  # whatever keeps a claimed run from starting, the others start
    "app/infra/telemetry/logs.py": 1,  # who logs an error of foreign code must not fail because of its class
    "app/features/webhooks/dispatcher.py": 1,  # whatever making a call raises, it counts as an attempt that failed
    "app/protocols/projection.py": 1,  # whatever reading a run raises is raised for each of its readers
    "app/infra/http/request_context.py": 1,  # whatever a request raises becomes a 500 problem
}
