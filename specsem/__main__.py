"""``python -m specsem`` is ``specsem``."""

from specsem.cli import main

if __name__ == "__main__":
    main()
