"""`python -m tinyvla VERB`, the same as `tinyvla VERB`."""

from tinyvla.app.cli import main

if __name__ == "__main__":
    main()
