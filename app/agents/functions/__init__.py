"""Function agents: an async function of the author's, replayed from the results of its finished steps."""
