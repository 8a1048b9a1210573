"""The migrations of this program, available without importing Alembic (8 MB per worker)."""

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
    "0017",
    "0018",
    "0019",
    "0020",
)
"""As in ``migrations/versions``, oldest first; a test compares them."""

HEAD = REVISIONS[-1]
