"""`python -m pathwatch.server.cli`: the command where no script is installed beside the interpreter."""

from pathwatch.server.cli import main

main()
