"""The command line of a dropr to come, which speaks versions 2 and 3 of the protocol and no longer version 1."""

import sys

from dropr_core.cli import main
from dropr_core.protocol import greeting

greeting.OLDEST, greeting.NEWEST = 2, 3

if __name__ == "__main__":
    sys.exit(main())
