"""``freshkv check``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from freshkv.cli import app, check
from freshkv.core import registry
from tests.testing.saboteurs import CountsPadding, TiesUpward

ROOT = Path(__file__).parents[2]
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.fixture
def saboteurs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry knows 'broken' and 'broken-decoder'."""
    policies = MappingProxyType({**registry.policies(), "broken": CountsPadding})
    decoders = MappingProxyType({**registry.decoders(), "broken-decoder": TiesUpward})
    for kind, known in (("policies", policies), ("decoders", decoders)):
        for module in ("freshkv.core.registry", "freshkv.testing.conformance.subject"):
            monkeypatch.setattr(f"{module}.{kind}", lambda known=known: known, raising=False)
    from freshkv.testing.conformance import subject

    kinds: dict[str, Any] = {
        "policy": (subject.CachePolicy, lambda: policies, registry.resolve_policy),
        "decoder": (subject.Decoder, lambda: decoders, registry.resolve_decoder),
    }
    monkeypatch.setattr(subject, "_KINDS", kinds)


def test_a_policy_that_keeps_the_contract_ends_with_code_zero(invoke: Invoke) -> None:
    result = invoke("dual", "--examples", 2)
    assert result.exit_code == 0, result.output
    assert "policy dual keeps the contract" in result.stdout
    assert "padding changes nothing" in result.stdout
    assert "failed" not in result.stdout


def test_a_spec_and_exact_options_are_understood(invoke: Invoke) -> None:
    result = invoke("dllm:kp=3", "--policy", "--exact", "dllm:kp=1,kr=1", "--examples", 1)
    assert result.exit_code == 0, result.output
    assert "left out" not in result.stdout


def test_a_decoder_is_found_by_its_name(invoke: Invoke) -> None:
    result = invoke("confidence:tokens_per_step=2", "--examples", 1)
    assert result.exit_code == 0, result.output
    assert "decoder confidence:tokens_per_step=2 keeps the contract" in result.stdout


@pytest.mark.usefixtures("saboteurs")
@pytest.mark.parametrize(
    ("name", "check_name", "words"),
    [
        ("broken", "padding changes nothing", "CountsPadding answers otherwise without the padding"),
        ("broken-decoder", "ties go to the lower position", "whose prediction is the same"),
    ],
)
def test_a_broken_one_ends_with_code_one_and_an_explanation(
    invoke: Invoke, name: str, check_name: str, words: str
) -> None:
    result = invoke(name, "--examples", 5)
    assert result.exit_code == 1, result.output
    assert f"{name} 1 of " in result.stdout
    flat = " ".join(result.stdout.split())
    assert f"{check_name} failed" in flat
    assert words in flat
    assert "What to change:" in flat


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dul",), "Unknown policy or decoder 'dul'. Did you mean 'dual'"),
        (("dual", "--decoder"), "Unknown decoder 'dual'"),
        (("dual", "--decoder", "--policy"), "exclude each other"),
        (("dllm:kp=0",), "is not a valid dllm"),
    ],
)
def test_what_cannot_be_checked_ends_with_code_two(invoke: Invoke, arguments: tuple[str, ...], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_without_hypothesis_it_says_what_to_install(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    result = invoke("dual")
    assert result.exit_code == 1
    assert "pip install 'freshkv[testing]'" in result.stderr


def test_help_has_an_example(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert "  freshkv check dual" in result.output


def test_pytest_is_not_needed() -> None:
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('pytest', '_pytest'))\n"
        "import freshkv.testing\n"
        "from freshkv.testing.conformance import decoder_checks, kit, policy_checks\n"
        "assert policy_checks.POLICY_CHECKS and decoder_checks.DECODER_CHECKS\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
