"""Calls to addresses that users name: ``addresses`` decides which are allowed, ``client`` makes them."""
