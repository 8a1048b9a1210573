"""The built-in tool-calling agent. Pure: it does nothing but through its ports."""
