"""`python -m lemonstand` is the command `lemonstand`."""

from lemonstand.cli import main

if __name__ == "__main__":
    main()
