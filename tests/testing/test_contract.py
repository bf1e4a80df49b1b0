"""What an author's test class does: expected failures, errors, and the report of pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import freshkv.testing
from freshkv.core.errors import InputError, SpecError, UnknownNameError
from freshkv.testing import DecoderContract, PolicyContract
from freshkv.testing.conformance.decoder_checks import DECODER_CHECKS
from freshkv.testing.conformance.policy_checks import POLICY_CHECKS
from tests.testing.saboteurs import CountsPadding, TiesUpward, Whole

ROOT = Path(__file__).parents[2]
PADDING = "padding_changes_nothing"


def contract(base: type[Any] = PolicyContract, **attributes: Any) -> Any:
    """An author's test class, ready to be asked."""
    return type("TestMine", (base,), {"examples": 4, **attributes})()


def test_every_check_is_a_test_method_that_explains_itself() -> None:
    for base, checks in ((PolicyContract, POLICY_CHECKS), (DecoderContract, DECODER_CHECKS)):
        methods = [name.removeprefix("test_") for name in vars(base) if name.startswith("test_")]
        assert methods == list(checks)
        for name in checks:
            assert len(name.split("_")) >= 3, "names are sentences"
            assert getattr(base, f"test_{name}").__doc__


def test_a_failure_is_the_explanation_and_no_traceback() -> None:
    with pytest.raises(pytest.fail.Exception) as caught:
        contract(policy=CountsPadding).test_padding_changes_nothing()
    assert "CountsPadding answers otherwise without the padding" in str(caught.value)
    assert "What to change: leave columns out where view.is_valid is False" in str(caught.value)
    assert not caught.value.pytrace


def test_an_expected_failure_is_reported_with_its_reason() -> None:
    mine = contract(policy=CountsPadding, expected_failures={PADDING: "the paper counts from column 0"})
    with pytest.raises(pytest.xfail.Exception, match="the paper counts from column 0"):
        mine.test_padding_changes_nothing()


def test_an_expected_failure_of_a_decoder_may_be_named_like_its_test() -> None:
    name = "test_ties_go_to_the_lower_position"
    mine = contract(DecoderContract, decoder=TiesUpward, expected_failures={name: "right to left on purpose"})
    with pytest.raises(pytest.xfail.Exception, match="right to left"):
        mine.test_ties_go_to_the_lower_position()


def test_an_expected_failure_that_passes_fails() -> None:
    mine = contract(policy=Whole, expected_failures={PADDING: "it did once"})
    with pytest.raises(pytest.fail.Exception, match=r"no longer fails; remove it from TestMine\.expected_failures"):
        mine.test_padding_changes_nothing()


def test_an_expected_failure_of_no_check_is_an_error_with_near_names() -> None:
    with pytest.raises(
        InputError, match=r"names 'padding_changes_something', which is no check\. Did you mean 'padding"
    ):
        contract(policy=Whole, expected_failures={"padding_changes_something": "typo"})


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_an_expected_failure_needs_a_reason(reason: Any) -> None:
    with pytest.raises(InputError, match="gives no reason for 'padding_changes_nothing'"):
        contract(policy=Whole, expected_failures={PADDING: reason})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (None, InputError, 'set policy = "name"'),
        ("dul", UnknownNameError, "Did you mean 'dual'"),
        ("dual:size=3", SpecError, "has no field 'size'"),
        (int, InputError, "int is not a subclass of freshkv.CachePolicy"),
        (freshkv.CachePolicy, InputError, "it has no method select"),
        (3, InputError, "policy is 3"),
    ],
)
def test_what_cannot_be_checked_is_said(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        contract(policy=given).test_padding_changes_nothing()


def test_exact_options_are_checked_only_where_they_are_named() -> None:
    name = "test_with_its_exact_options_it_is_the_uncached_run"
    with pytest.raises(pytest.skip.Exception, match="set 'exact'"):
        getattr(contract(policy="dllm"), name)()
    getattr(contract(policy="dllm", exact="dllm:kp=1,kr=1"), name)()


def test_freshkv_testing_names_nothing_else() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Contract'"):
        _ = freshkv.testing.Contract


def test_pytest_runs_and_reports_the_kit(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from freshkv.testing import PolicyContract\n"
        "from tests.testing.saboteurs import CountsPadding\n\n\n"
        "class TestMine(PolicyContract):\n"
        "    policy = CountsPadding\n"
        "    examples = 4\n\n\n"
        "class TestKnown(TestMine):\n"
        '    expected_failures = {"padding_changes_nothing": "known"}\n',
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "padding or options",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "CountsPadding answers otherwise without the padding" in done.stdout
    assert re.search(r"1 failed, 2 passed, 2 skipped, \d+ deselected, 1 xfailed", done.stdout)
    assert "Traceback" not in done.stdout
