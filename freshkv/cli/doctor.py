"""``freshkv doctor``: whether this installation is whole."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import typer

from freshkv.cli.console import output
from freshkv.cli.failures import FAILED, Debug, reports_errors

if TYPE_CHECKING:
    from freshkv.core.plugins import PluginProblem

HELP = (
    "Look at this installation: versions, devices, bundled models, plugins.\n\n"
    "Ends with exit code 1 if something is wrong; what, is said in lines that begin with 'problem'. Below the problem "
    "of a plugin stands where it is installed, what it asks for, and where it failed.\n\n"
    "\b\n"
    "Example:\n"
    "  freshkv doctor\n"
)

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pluggy", "attrs", "cattrs", "scipy", "typer", "rich")


@reports_errors
def doctor(debug: Debug = False) -> None:
    """Print what is found, then what is wrong."""
    console = output()
    problems: list[str] = []
    for section in (_versions, _devices, _models, _plugins):
        for name, fact in section(problems):
            console.print(f"{name:<13} {fact}", markup=False, soft_wrap=True)
    for problem in problems:
        console.print(f"problem: {problem}", style="red", markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(FAILED)
    console.print("No problems found.", style="green")


Facts = Iterator[tuple[str, str]]


def _versions(problems: list[str]) -> Facts:
    from freshkv.core.version import VERSION

    yield "freshkv", VERSION
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "environment", sys.prefix
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            problems.append(f"the package {package} is not installed")


def _devices(problems: list[str]) -> Facts:
    import torch

    from freshkv.compare.provenance import device_name

    yield "cpu", f"{device_name(torch.device('cpu'))}, threads: {torch.get_num_threads()}"
    if not torch.cuda.is_available():
        yield "cuda", "not available"
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", device_name(torch.device("cuda", index))


def _models(problems: list[str]) -> Facts:
    from freshkv import load
    from freshkv.core.errors import FreshkvError
    from freshkv.core.registry import PluginWarning
    from freshkv.models.registry import bundled_models
    from freshkv.models.tokenizer import load_tokenizer

    names = bundled_models()
    if not names:
        problems.append("no bundled model is in the package; reinstall freshkv")
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PluginWarning)  # told below, with what they mean
                model, tokenizer = load(name), load_tokenizer(name)
        except FreshkvError as error:
            problems.append(f"bundled model {name}: {error}")
        else:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            yield name, f"{parameters:,} parameters, {len(tokenizer)} words"


def _plugins(problems: list[str]) -> Facts:
    from freshkv.core.plugins import API_VERSION
    from freshkv.core.registry import installed_plugins
    from freshkv.models.extensions import additions, plugin_problems

    yield "plugin api", str(API_VERSION)
    problems.extend(_explain(problem) for problem in plugin_problems())
    found = additions()
    for (name, distribution), added in found.items():
        yield f"plugin {name}", f"{distribution}: {', '.join(added) or 'adds nothing'}"
    if not found and not installed_plugins().problems:
        yield "plugins", "none installed"


def _explain(problem: PluginProblem) -> str:
    """The line that everybody sees, and the facts below it."""
    return "\n".join([str(problem), *(f"  {name:<14}{fact}" for name, fact in problem.facts)])
