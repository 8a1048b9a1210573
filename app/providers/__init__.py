"""Vendors of models and embeddings, behind their ports.

- ``embeddings``: embedding models
- ``llm``: language models
"""
