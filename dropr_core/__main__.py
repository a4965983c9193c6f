"""``python -m dropr_core`` is ``dropr``: the angel starts its children by it, with its own interpreter."""

from dropr_core.cli import main

if __name__ == "__main__":
    main()
