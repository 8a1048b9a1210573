"""Whether slow proofs run in their long form: ``FULL=1`` in the environment, ``make test FULL=1``."""

import os

FULL = os.environ.get("FULL") == "1"
