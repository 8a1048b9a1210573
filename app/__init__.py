"""Durable, streaming, multi-tenant server for AI agents. Imports go down this list only.

- ``agents``: what can run, behind one port
- ``base``: primitives without dependencies
- ``cli``: the command ``agent-service``: one verb a file
- ``console``: the page for browsers, on the public API alone
- ``domain``: what a run says and keeps: messages, events, state
- ``engine``: what executes runs, and the tables that engine and features share
- ``protocols``: the same runs on other wires
- ``features``: what the API names: one package per feature, each with the same five files
- ``infra``: adapters to the outside: database, cache, HTTP, telemetry, settings, secrets
- ``providers``: vendors of models and embeddings, behind their ports
- ``security``: who may do what, how much of it, and the record of it
- ``server``: the parent process, its workers and sockets, and the application that a worker serves
- ``tools``: public API for authors of tools
"""
