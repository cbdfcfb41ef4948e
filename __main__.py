"""The console command: nothing takes time before Ctrl-C is looked after."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """As scripts.main, interrupted while that is imported or not."""
    try:
        from .scripts import main

        return main(arguments)
    except KeyboardInterrupt:
        from .scripts import interrupted

        return interrupted()


if __name__ == "__main__":
    sys.exit(main())
