"""Help, errors and what is imported for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from freshkv.cli import options
from freshkv.cli.failures import exit_code
from freshkv.core import errors
from freshkv.core.version import VERSION

COMMANDS = ("compare", "generate", "list", "new", "check", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(invoke, command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"  freshkv {command}" in result.output
    assert "Example" in result.output


def test_help_names_every_command(invoke):
    result = invoke("--help")
    assert all(f" {command} " in result.output for command in COMMANDS)


def test_the_version_is_shown(invoke):
    assert invoke("--version").output == f"freshkv {VERSION}\n"


def test_help_imports_nothing_heavy():
    root = Path(__file__).parents[2]
    code = (
        "import sys, types\n"
        f"package = types.ModuleType('freshkv'); package.__path__ = [{str(root / 'freshkv')!r}]\n"
        "sys.modules['freshkv'] = package\n"
        "from typer.testing import CliRunner\n"
        "from freshkv.cli import app\n"
        "result = CliRunner().invoke(app, ['compare', '--help'])\n"
        "assert 'Examples' in result.output\n"
        "print(*{'torch', 'transformers', 'numpy', 'scipy'} & sys.modules.keys())\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == ""


def test_errors_of_input_and_others_have_their_exit_codes():
    codes = {name: exit_code(getattr(errors, name)("x")) for name in ("InputError", "SpecError", "UnknownNameError")}
    assert set(codes.values()) == {2}
    assert [exit_code(errors.ResultsError("x")), exit_code(errors.PolicyError("x"))] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "--policy", "prefx"), "Did you mean 'prefix'?"),
        (("compare", "--policy", "dllm:kp=0"), "is not a valid dllm"),
        (("compare", "--decoder", "confidence:tokens=2"), "no field 'tokens'"),
        (("compare", "--task", "chess"), "Unknown task 'chess'"),
        (("compare", "--model", "nobody"), "Unknown model 'nobody'"),
        (("compare", "--model", "./nowhere"), "There is no folder './nowhere'"),
        (("compare", "--problems", "0"), "problems is 0"),
        (("compare", "--block-length", "7"), "block_length 7 does not divide"),
        (("compare", "--dtype", "int4"), "dtype is 'int4'"),
        (("compare", "--device", "abacus"), "device is 'abacus'"),
        (("compare", "--temperature", "-1"), "temperature is -1"),
        (("generate", "--policy", "prefx"), "Did you mean 'prefix'?"),
        (("generate", "--prompt", "3", "--task", "sums"), "exclude each other"),
        (("generate", "--trace", "nowhere/trace"), "there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_two(invoke, arguments, words):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output


def test_debug_shows_where_an_error_was_raised(invoke):
    result = invoke("compare", "--policy", "prefx", "--debug")
    assert isinstance(result.exception, errors.UnknownNameError)


def test_options_that_click_refuses_are_named(invoke):
    result = invoke("compare", "--problem", "3")
    assert result.exit_code == 2
    assert "--problems" in result.output


def test_shared_options_have_help():
    for name in ("Model", "GenLength", "BlockLength", "Temperature", "TopK", "TopP", "Dtype", "Device", "Threads"):
        assert getattr(options, name).__metadata__[0].help
