"""Other agents as tools, by A2A 1.0, or 0.3 for old peers: https://a2a-protocol.org

- ``spec``: an agent as the agents file describes it, and the names of its tool
- ``card``: what an agent's card says: its description, and where and in which version it is called
- ``client``: requests to one agent, to checked addresses only
- ``peers``: all agents that those of this process call, and their cards
- ``tool``: an agent as a tool
- ``peer_task``: one call to its end: a task of the agent, and its questions to people
- ``content``: what an agent returned, as content of messages
"""
