"""Take the pictures of the report that the documentation shows. Run ``python -m docs.tools.screenshots``.

It measures a small comparison with a bundled model (a minute or two) and needs a Chromium or Chrome of the system.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from freshkv.compare import Experiment, run_experiment
from freshkv.compare.beside import Keep
from freshkv.compare.report import read_sources, write_page

PICTURES = Path(__file__).parents[1] / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH = 1040
MOST = 150_000  #: bytes of a picture


def main() -> None:
    """Compare, write the page, and take both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(
            tasks=["weave"], policies=["none", "prefix", "dual", "dllm", "d2cache"], decoders=["threshold"], problems=20
        )
        results = run_experiment(experiment, Path(folder) / "weave.jsonl", keep=Keep(traces=1, drift=1))
        page_file = Path(folder) / "weave.html"
        write_page(read_sources([results.path]), page_file)
        with _open(page_file) as page:
            _take(page, "#pareto", "report-pareto.png")
            page.locator('#player [data-part="case"]').select_option(index=0)
            page.locator('[data-side="right"] [data-part="entry"]').select_option(label="d2cache")
            page.locator('[data-side="right"] [data-part="name"]', has_text="d2cache").wait_for()
            for _ in range(2):
                page.locator('#player [data-part="forward"]').click()
            _take(page, "#player", "report-player.png")


@contextmanager
def _open(path: Path) -> Iterator[Page]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"Screenshots need a browser: none of {', '.join(BROWSERS)} is installed.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(path.as_uri())
        page.locator('[data-side="right"] .cell').first.wait_for()
        yield page
        browser.close()


def _take(page: Page, selector: str, name: str) -> None:
    path = PICTURES / name
    page.locator(selector).screenshot(path=path)
    assert path.stat().st_size < MOST, f"{path} has {path.stat().st_size} bytes; take a smaller part of the page"
    print(f"wrote {path.relative_to(PICTURES.parents[1])}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
