"""What pages take from the code is what the code says now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import freshkv
from docs.tools import generate, pictures
from freshkv.core import errors
from tests.docs.pages import ROOT, Page

REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))


@pytest.fixture(scope="module")
def outputs() -> dict[Path, str]:
    return dict(generate.outputs())


def test_generated_parts_are_up_to_date(outputs: dict[Path, str]) -> None:
    old = [path for path, text in outputs.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    names = ", ".join(str(path.relative_to(ROOT)) for path in old)
    assert not old, f"not what the code says now: {names}; run: python -m docs.tools.generate"


def test_pages_have_the_tables_that_are_generated(outputs: dict[Path, str]) -> None:
    pages = "\n".join(outputs.values())
    assert set(re.findall(r"<!-- generated: ([\w-]+) -->", pages)) == set(generate.PARTS)


def test_the_picture_of_stale_keys_shows_what_the_page_computes() -> None:
    concepts = Page.read(ROOT / "docs" / "concepts.md")
    (output,) = [block.text for block in concepts.blocks if block.text.startswith("refreshed    layer 0")]
    lines = [re.split(r"\s{2,}|(?<=\)) ", line) for line in output.splitlines()[1:]]
    printed = {tuple(map(int, re.findall(r"\d", rows))): tuple(marks) for rows, *marks in lines}
    assert printed == pictures.STALE


def test_the_picture_of_drift_shows_what_the_page_computes() -> None:
    page = Page.read(ROOT / "docs" / "how-to" / "measure-drift.md")
    (output,) = [block.text.splitlines() for block in page.blocks if block.text.startswith("dual\n")]
    printed = {output[start]: tuple(output[start + 1 : start + 5]) for start in range(0, len(output), 5)}
    assert printed == pictures.DRIFT


def test_the_tutorial_ends_with_the_policy_of_the_plugin() -> None:
    tutorial = (ROOT / "docs" / "tutorials" / "first-policy.md").read_text(encoding="utf-8")
    plugin = (ROOT / "plugins" / "dkv-cache" / "freshkv_dkv_cache" / "decode.py").read_text(encoding="utf-8")
    assert plugin[plugin.index("    def select") :] in tutorial


@pytest.mark.parametrize("name", freshkv.__all__)
def test_the_reference_has_every_public_name(name: str) -> None:
    assert re.search(rf"^::: freshkv\.(core\.registry\.)?{name}$|^`freshkv\.{name}`", REFERENCE, re.MULTILINE) or (
        name in vars(errors) and "::: freshkv.core.errors" in REFERENCE
    )
