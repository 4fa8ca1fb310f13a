"""`python -m hloc` is the `hloc` command."""

from hloc.cli import main

if __name__ == "__main__":
    main()
