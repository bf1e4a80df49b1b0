"""``freshkv list`` and ``freshkv doctor`` say what is there."""

import warnings

import pytest

import freshkv
from freshkv.cli import doctor
from freshkv.core import registry
from freshkv.models.registry import bundled_models
from freshkv.models.tasks import tasks


def test_everything_is_listed(invoke):
    result = invoke("list")
    assert result.exit_code == 0
    for name in [*freshkv.policies(), *freshkv.decoders(), *bundled_models(), *tasks()]:
        assert f" {name} " in result.output
    assert "current_k=32" in result.output
    assert "arXiv:2505.22618" in result.output
    assert "built-in" in result.output


@pytest.mark.parametrize(("kind", "there", "absent"), [("policies", "dual", "sudoku"), ("tasks", "sudoku", "dual")])
def test_one_kind_is_listed_alone(invoke, kind, there, absent):
    output = invoke("list", kind).output
    assert there in output
    assert absent not in output


def test_an_unknown_kind_is_refused(invoke):
    result = invoke("list", "poems")
    assert result.exit_code == 2
    assert "policies" in result.output


def test_doctor_tells_versions_and_devices(invoke):
    result = invoke("doctor")
    for word in ("freshkv", "python", "torch", "transformers", "cpu", *bundled_models()):
        assert f"{word} " in result.output
    assert (result.exit_code == 0) == ("No problems found." in result.output)


def test_doctor_misses_models_and_packages(invoke, monkeypatch):
    monkeypatch.setattr("freshkv.models.registry.bundled_models", dict)
    monkeypatch.setattr(doctor, "PACKAGES", ("surely-not-installed",))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "problem: no bundled model" in result.output
    assert "problem: the package surely-not-installed is not installed" in result.output


def test_doctor_names_a_bundled_model_that_cannot_be_loaded(invoke, monkeypatch, tmp_path):
    monkeypatch.setattr("freshkv.models.registry.bundled_models", lambda: {"nowhere": tmp_path})
    result = invoke("doctor")
    assert "problem: bundled model nowhere" in result.output


def test_warnings_are_single_lines(invoke, monkeypatch):
    from freshkv.core.registry import PluginWarning

    def warn():
        warnings.warn("plugin 'x' was skipped", PluginWarning, stacklevel=1)
        return registry.policies()

    monkeypatch.setattr("freshkv.core.registry.policies", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = invoke("compare", "--policy", "nobody")
    assert result.stderr.splitlines()[0] == "Warning: plugin 'x' was skipped"
