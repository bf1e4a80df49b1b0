"""``freshkv doctor``: whether this installation is whole."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import typer

from freshkv.cli.console import output
from freshkv.cli.failures import FAILED, Debug, reports_errors

HELP = (
    "Look at this installation: versions, devices, bundled models, plugins.\n\n"
    "Ends with exit code 1 if something is wrong; what, is said in lines that begin with 'problem'.\n\n"
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
            console.print(f"{name:<14}{fact}", markup=False, soft_wrap=True)
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
    from freshkv.models.registry import bundled_models
    from freshkv.models.tokenizer import load_tokenizer

    names = bundled_models()
    if not names:
        problems.append("no bundled model is in the package; reinstall freshkv")
    for name in names:
        try:
            model, tokenizer = load(name), load_tokenizer(name)
        except FreshkvError as error:
            problems.append(f"bundled model {name}: {error}")
        else:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            yield name, f"{parameters:,} parameters, {len(tokenizer)} words"


def _plugins(problems: list[str]) -> Facts:
    from freshkv.core.registry import decoders, installed_plugins, policies
    from freshkv.models.tasks import tasks

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for registry in (policies, decoders, tasks):
            registry.__wrapped__()  # the registry itself warns only once
    problems.extend(dict.fromkeys(str(warning.message) for warning in caught))
    found = installed_plugins().distributions
    for name, distribution in found.items():
        yield f"plugin {name}", distribution
    if not found:
        yield "plugins", "none installed"
