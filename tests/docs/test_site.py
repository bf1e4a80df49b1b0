"""The site builds without a warning, has what it promises, and fetches nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import freshkv.compare
import freshkv.testing
from freshkv.core import errors
from tests.docs.pages import ROOT

_REMOTE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?https?://[^>]*>|@import\s+url\(http")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'freshkv[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"mkdocs build --strict failed:\n{result.stdout}{result.stderr}"
    assert "WARNING" not in result.stderr, result.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    docs = ROOT / "docs"
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {path.relative_to(docs) for path in docs.rglob("*.md")} <= built
    assert not (site / "tools").exists()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        found = _REMOTE.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(site)} loads {found}"


def test_drawings_are_part_of_their_pages_and_screenshots_beside_them(site: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    count = len(list((ROOT / "docs" / "pictures").glob("*.svg")))
    assert text.count('<svg xmlns="http://www.w3.org/2000/svg" class="fk"') == count
    linked = set(re.findall(r'src="(?:\.\./)*pictures/([^"]+)"', text))
    assert linked == {path.name for path in (ROOT / "docs" / "pictures").glob("*.png")}
    assert linked <= {path.name for path in (site / "pictures").iterdir()}


def test_the_reference_shows_every_public_name(site: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    shown = set(re.findall(r'id="(freshkv\.[\w.]+)"', text))
    registry = {"policies", "decoders"}
    expected = {f"freshkv.{'core.registry.' * (name in registry)}{name}" for name in freshkv.__all__}
    expected |= {f"freshkv.compare.{name}" for name in freshkv.compare.__all__}
    expected |= {f"freshkv.testing.{name}" for name in freshkv.testing.__all__}
    expected |= {f"freshkv.core.errors.{name}" for name, value in vars(errors).items() if _is_error(value)}
    missing = expected - shown - {"freshkv.FreshkvError", "freshkv.compare.DEFAULT_POLICIES"}
    assert not missing


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, errors.FreshkvError)
