"""One installation of all the plugins, for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.broken import BROKEN, GOOD, HALF
from tests.plugins.install import pip_install


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed every broken plugin, and those that work."""
    wheels = tmp_path_factory.mktemp("wheels")
    folder = tmp_path_factory.mktemp("site")
    paths = [package.write_wheel(wheels) for package in (GOOD, HALF)]
    paths += [broken.package.write_wheel(wheels, broken.target) for broken in BROKEN]
    pip_install(folder, paths)
    return folder
