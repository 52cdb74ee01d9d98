"""``python -m skspec``: the command line."""

from skspec.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
