"""`python -m precode`, the same as `precode`."""

from precode.cli import main

# Processes that compute cells of a study import this module too.
if __name__ == "__main__":
    main()
