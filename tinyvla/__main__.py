"""`python -m tinyvla VERB`, the same as `tinyvla VERB`.

Notable:
- here is what has to happen before the imports, which take a second: Ctrl-C is answered, a folder is there.
"""

import os
import sys


def main() -> None:
    """Run the command line."""
    try:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # None where it was closed, as by `<&-`
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        try:
            os.getcwd()
        except OSError:
            print("tinyvla: error: the current folder is gone; go to another one with cd", file=sys.stderr)
            sys.exit(2)
        from tinyvla.app import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
