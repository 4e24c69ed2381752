"""`python -m promptpipe`, and the console script."""

from __future__ import annotations

from promptpipe.cli import main

if __name__ == "__main__":
    main()
