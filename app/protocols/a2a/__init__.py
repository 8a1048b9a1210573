"""A2A 1.0, the protocol of agents that call agents, and 0.3 for old peers: https://a2a-protocol.org

- ``controller``: HTTP routes: cards, JSON-RPC, HTTP+JSON
- ``bindings``: how each binding writes results, errors and events
- ``agent_tasks``: operations on the tasks of an agent
- ``tasks``: runs, and the runs that continue them, as tasks
- ``projection``: a run's events as updates of a task
- ``content``: parts of messages as content of a thread's messages, and back
- ``push``: bodies of push notifications
- ``card``: agent cards and their signatures
- ``errors``: errors in the forms of both bindings
"""
