"""What the pages say of the code is so: links, paths, options, spec strings, counts."""

from __future__ import annotations

import re
from typing import Any

import pytest

import freshkv
from freshkv.core.registry import builtin_classes, resolve_decoder, resolve_policy
from freshkv.core.spec import describe_fields
from freshkv.models.tokenizer import load_tokenizer
from tests.docs.pages import PAGES, ROOT, Page
from tests.golden_cases import cases

ALL = [Page.read(path) for path in PAGES]
SITE = [page for page in ALL if page.path.is_relative_to(ROOT / "docs")]
each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)

CLASSES: list[tuple[str, type[Any]]] = [
    *(("policies", cls) for cls in builtin_classes("freshkv.policies", freshkv.CachePolicy).values()),  # type: ignore[type-abstract]
    *(("decoders", cls) for cls in builtin_classes("freshkv.decoders", freshkv.Decoder).values()),  # type: ignore[type-abstract]
]
each_class = pytest.mark.parametrize(("folder", "cls"), CLASSES, ids=lambda value: getattr(value, "name", value))


@each_page
def test_internal_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in Page.read(path).anchors, f"{page.name} links to {link}, which has no such heading"


@pytest.mark.parametrize("page", SITE, ids=lambda page: page.name)
def test_pages_of_the_site_link_to_each_other_only(page: Page) -> None:
    for link in page.links:
        if not re.match(r"\w+:|#", link):
            assert (page.path.parent / link.partition("#")[0]).resolve().is_relative_to(ROOT / "docs"), link


@each_page
def test_paths_that_are_named_exist(page: Page) -> None:
    for code in page.inline_code:
        if re.fullmatch(r"(freshkv|tests|training|docs|plugins|benchmarks)/[\w./-]*", code):
            assert (ROOT / code).exists(), f"{page.name} names {code}"


@each_page
def test_spec_strings_that_are_named_can_be_built(page: Page) -> None:
    resolvers = dict.fromkeys(freshkv.policies(), resolve_policy)
    resolvers |= dict.fromkeys(freshkv.decoders(), resolve_decoder)  # type: ignore[dict-item]
    for code in page.inline_code:
        name, colon, fields = code.partition(":")
        if name in resolvers and colon and "=" in fields and "..." not in fields:
            resolvers[name](code)


@each_class
def test_a_page_names_all_options_with_their_defaults(folder: str, cls: type[Any]) -> None:
    page = Page.read(ROOT / "docs" / folder / f"{cls.name}.md")
    documented = {row[0].strip("`"): row[1].strip("`") for row in page.table("option")}
    assert list(documented.items()) == list(describe_fields(cls).items())


@each_class
def test_a_page_has_the_sections_that_readers_expect(folder: str, cls: type[Any]) -> None:
    page = Page.read(ROOT / "docs" / folder / f"{cls.name}.md")
    expected = {"policies": {"idea", "options", "exact-when", "cost"}, "decoders": {"idea", "options", "when-it-helps"}}
    assert page.text.startswith(f"# {cls.name}\n")
    assert page.anchors >= expected[folder]
    for number in re.findall(r"\d{4}\.\d{5}", cls.paper):
        assert f"arXiv:{number}" in page.text


@each_class
def test_indexes_name_everything(folder: str, cls: type[Any]) -> None:
    for page in (ROOT / "docs" / folder / "index.md", ROOT / "README.md"):
        assert f"`{cls.name}`" in page.read_text(encoding="utf-8")


def test_the_code_map_names_every_file_of_the_core() -> None:
    text = (ROOT / "docs" / "code-map.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "freshkv" / "core").glob("[!_]*.py"))
    assert [file.name for file in files if f"`{file.name}`" not in text] == []


def test_the_readme_counts_the_recorded_runs() -> None:
    count = len(list(cases("vanilla", "ar", "klass", "wino")))
    assert f"{count} recorded runs" in re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_prompt_of_the_examples_is_what_it_is_said_to_be() -> None:
    digits = "3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2"
    for model in ("tiny-llada", "tiny-dream"):
        assert load_tokenizer(model).encode(f"weave {digits}") == [14, *map(int, digits.split())]
