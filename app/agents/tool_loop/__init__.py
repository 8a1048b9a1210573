"""The built-in tool-calling agent. Pure: all side effects go through its ports."""
