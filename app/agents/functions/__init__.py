"""Function agents: async functions that are replayed from the results of their completed steps."""
