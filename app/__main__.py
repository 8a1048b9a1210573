"""``python -m app`` is ``agent-service``."""

import sys

from app.cli.main import main

sys.exit(main())
