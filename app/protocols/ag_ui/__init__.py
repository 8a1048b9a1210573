"""AG-UI 1.0, which front ends for agents speak: https://docs.ag-ui.com/spec/1.0

- ``controller``: HTTP routes of AG-UI, where each assistant is an agent
- ``copilotkit``: HTTP routes of CopilotKit's runtime, which speak AG-UI too
- ``starting``: start the run that a request asks for, once
- ``offers``: tools of the application, and what the model is to know
- ``inbound``: what a request brings: new messages, an edit of earlier ones, answers, changes of the state
- ``messages``: messages of a thread as AG-UI shows them, and the other way
- ``projection``: a run's events as AG-UI's events
- ``json_patch``: changes of a state as operations of RFC 6902
- ``connection``: a thread's history and runs on one stream
- ``subagents``: subgraphs as sub-agents
- ``structs``: wire shapes
- ``errors``: the shapes of errors
"""
