"""`python -m dstrl_cli`: the same as the command `dstrl`."""

import sys

from dstrl_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
