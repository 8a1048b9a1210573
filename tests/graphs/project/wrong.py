raise LookupError("no model is configured")
