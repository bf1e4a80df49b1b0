"""The command line in this process."""

import pytest
from typer.testing import CliRunner

from freshkv.cli import app
from tests.compare.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return str(save_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """A function that runs ``freshkv`` in an empty folder, on a wide screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def small(checkpoint):
    """Options of a comparison that takes a moment."""
    return ("--model", checkpoint, "--task", "weave", "--problems", 1, "--gen-length", 8, "--block-length", 4)
