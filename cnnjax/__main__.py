"""`python -m cnnjax` is `cnnjax`."""

from cnnjax.cli import main

if __name__ == "__main__":
    main()
