"""The built-in tool-calling agent. Pure: all side effects go through its ports.

- ``agent``: the tool loop
- ``answer_stream``: assemble a streamed answer
- ``approval``: human approval of tool calls before they run, and human review of calls that a crash left unresolved
- ``call_questions``: one call: its identity across attempts, and the questions that it asks people
- ``calls``: validate and run tool calls concurrently
- ``checked_tool``: a tool with the schema of its arguments
- ``client_tools``: tools that the caller of a run offers and runs itself
- ``conversation``: the messages of a thread, and their tool calls
- ``conversation_window``: keep long conversations within a token budget
- ``graph``: the JSON Schemas and the graph of the tool loop, for clients
- ``inputs``: parse untrusted input
- ``summary_prompt``: prompts that ask a model for a summary and present the summary in later requests
"""
