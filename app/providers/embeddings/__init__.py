"""Embedders, which turn texts into vectors.

* ``port``: what an embedder is
* ``registry``: embedders by name
* ``hashing``: without a model
* ``minilm``, ``bert``, ``wordpiece``: the local model, its forward pass and tokenizer
* ``openai``: a server with the OpenAI API
* ``cached``: cache and single flight
"""
