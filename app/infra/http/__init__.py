"""HTTP without features: middleware, problems, bodies, parameters, event streams, the OpenAPI document."""
