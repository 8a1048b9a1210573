"""Wire shapes that a protocol's server and client share.

- ``a2a``: A2A 1.0
- ``a2a_v03``: A2A 0.3, to and from the form of 1.0
"""
