"""HTTP without any feature: problems, bodies, parameters, streams, the document of the API."""
