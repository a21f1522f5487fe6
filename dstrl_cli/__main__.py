"""The command `dstrl`, and `python -m dstrl_cli`."""

from __future__ import annotations

import sys

from dstrl_cli import check_system
from dstrl_cli.errors import InputError


def main() -> int:
    """Run the command line of this process; return the exit code.

    Nothing else is imported where the system is not one that dstrl runs on.
    """
    try:
        check_system()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from dstrl_cli import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
