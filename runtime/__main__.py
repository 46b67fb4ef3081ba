"""``python -m sprat``: the command line."""

from sprat.cli import main

if __name__ == "__main__":
    main()
