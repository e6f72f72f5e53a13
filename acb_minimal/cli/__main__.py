"""`python -m acb_minimal.cli` is `acb`."""

from .app import main

main()
