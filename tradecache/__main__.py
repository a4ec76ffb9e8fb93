"""Run the command line: `python -m tradecache`."""

import sys

from tradecache.cli import main

if __name__ == "__main__":
    sys.exit(main())
