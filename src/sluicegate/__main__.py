"""``python -m sluicegate``, and the command ``sluicegate``.

Worker processes import this module again, so it imports nothing by itself.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    from sluicegate.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
