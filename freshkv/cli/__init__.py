"""The command line. Nothing heavy is imported before a command runs."""

from freshkv.cli.app import app, main

__all__ = ["app", "main"]
