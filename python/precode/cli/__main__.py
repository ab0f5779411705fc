"""`python -m precode.cli`, the same as `precode`."""

from precode.cli import main

main()
