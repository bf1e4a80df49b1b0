"""Every block of code in the documentation runs, and prints what the page says.

The blocks of a page share a namespace and an empty folder, in order. An ``output`` block is what the block before it
prints (``...`` stands for anything). A block that must not run says why: ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from freshkv.cli import app
from tests.docs.pages import PAGES, ROOT, Block, Page

RUNNABLE = ("python", "console", "bash")
KNOWN = (*RUNNABLE, "output", "text", "json")


def _pages(*languages: str) -> list[Page]:
    pages = [Page.read(path) for path in PAGES]
    return [page for page in pages if any(block.language in languages for block in page.blocks)]


def _run_python(block: Block, page: Page, module: ModuleType) -> str:
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, str(page.path), "exec", dont_inherit=True)
    with contextlib.redirect_stdout(printed):
        exec(code, vars(module))
    return printed.getvalue()


def _run_shell(block: Block, page: Page) -> str:
    lines = block.text.replace("\\\n", " ").splitlines()
    return "".join(_run_command(line.removeprefix("$ "), page) for line in lines if line.strip())


def _run_command(command: str, page: Page) -> str:
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(arguments) <= set(targets), f"{page.name}: the Makefile lacks a target of '{command}'"
        return ""
    assert program == "freshkv", f"{page.name}: cannot run '{command}' here; say why it is not run"
    result = CliRunner().invoke(app, arguments, prog_name="freshkv")
    assert result.exit_code == 0, f"{page.name}: '{command}' ended with {result.exit_code}\n{result.output}"
    return result.stdout


def _run(block: Block, page: Page, module: ModuleType) -> str:
    return _run_python(block, page, module) if block.language == "python" else _run_shell(block, page)


def _check_output(expected: Block, printed: str, page: Page) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    right = doctest.OutputChecker().check_output(expected.text, printed, options)
    assert right, f"{page.name}:{expected.line} expects\n{expected.text}\n\nbut this is printed:\n{printed}"


@pytest.mark.parametrize("page", _pages(*RUNNABLE), ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_and_print_what_it_says(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("documented_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where classes of the page look up their names
    printed = None
    for block in page.blocks:
        if block.language == "output":
            assert printed is not None, f"{page.name}:{block.line}: no block that ran comes before this output"
            _check_output(block, printed, page)
        elif block.language in RUNNABLE:
            printed = None if block.not_run is not None else _run(block, page, module)


@pytest.mark.parametrize("page", [Page.read(path) for path in PAGES], ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Page) -> None:
    strange = [f"{page.name}:{block.line}" for block in page.blocks if block.language not in KNOWN]
    assert not strange, f"blocks of an unknown language: {strange}; expected one of {KNOWN}"


def test_few_blocks_are_not_run() -> None:
    skipped = [block for path in PAGES for block in Page.read(path).blocks if block.not_run is not None]
    assert len(skipped) <= 9
