"""``python -m trendrag``: the command, also where no script of it is on the path."""

from trendrag.cli import main

main()
