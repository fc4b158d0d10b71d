"""`python -m cti.embedded`: fetch once what the demo and the tests need beside Python packages, and say what came."""

import sys

from cti.embedded.asterisk import AsteriskUnavailable, find_or_provision
from cti.embedded.place import home


def main() -> int:
    """Get an Asterisk; without one nothing fails here, the tests and the demo say what that means for them."""

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        found = find_or_provision(home(), say)
    except AsteriskUnavailable as why:
        say(f"No real Asterisk: {why}")
    else:
        say(f"{found.version} ({found.source})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
