"""Experiments that take a moment."""

import pytest
from attrs import frozen

from freshkv import CachePolicy
from freshkv.compare import Experiment
from tests.compare.checkpoint import save_checkpoint


@frozen
class Broken(CachePolicy):
    """Fails after some steps, as a plugin may."""

    name = "broken"

    def select(self, view):
        if view.step == 2:
            raise RuntimeError("no such row")
        from freshkv import Selection

        return Selection(predict=view.everything)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return str(save_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def experiment(checkpoint):
    """A function from changed fields to a small experiment."""

    def make(**changes):
        fields = {
            "model": checkpoint, "tasks": ["weave"], "policies": ["none", "dual"], "problems": 2, "gen_length": 8,
            "block_length": 4,
        }  # fmt: skip
        return Experiment(**{**fields, **changes})

    return make


@pytest.fixture
def broken():
    return Broken()
