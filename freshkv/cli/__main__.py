"""``python -m freshkv.cli``: the command without its script."""

from freshkv.cli.app import main

main()
