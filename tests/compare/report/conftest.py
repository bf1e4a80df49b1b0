"""A report of a small experiment whose texts would like to be markup, and a real browser to look at it."""

import os
import shutil
import time
from contextlib import contextmanager

import pytest
from attrs import evolve
from playwright.sync_api import sync_playwright

from freshkv.compare import Experiment, run_experiment
from freshkv.compare.beside import Keep
from freshkv.compare.report import read_sources, write_page
from freshkv.models.tasks import Problem, Task
from tests.compare.checkpoint import save_checkpoint

SECONDS = 90  #: to wait; a busy machine is no fault of the page
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ATTACK = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1"> {{ 7 * 7 }}'


class Hostile(Task):
    """Problems whose text is markup; half of them count as solved."""

    name = "hostile"
    gen_length = 8
    words = ("1", "2", "3")

    def draw(self, randomness, *, held_out):
        raise NotImplementedError

    def generate(self, count, seed=0, *, held_out=True):
        return [Problem(prompt=f"{number} {ATTACK}", answer=f"{number}{ATTACK}") for number in range(count)]

    def check(self, problem, answer):
        return int(problem.answer[0]) % 2 == 0


def make_results(folder, **changes):
    """A results file of a checkpoint with random weights."""
    model = save_checkpoint(folder / "checkpoint")
    fields = {
        "model": str(model), "tasks": ["weave", Hostile()], "policies": ["none", "dual", "dllm:kp=4"], "problems": 6,
        "decoders": ["confidence", "threshold:threshold=0.3"], "gen_length": 8, "block_length": 4,
    }  # fmt: skip
    experiment = Experiment(**{**fields, **changes})
    return run_experiment(experiment, folder / "results.jsonl", keep=Keep(traces=1, drift=1))


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def source(results):
    """The results with what lies beside them; the model's words are markup, too."""
    (source,) = read_sources([results.path])
    word = max(source.traces[0].words)
    return evolve(source, traces=tuple(evolve(each, words={**each.words, word: ATTACK}) for each in source.traces))


@pytest.fixture(scope="session")
def page_file(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page([source], path)
    return path


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium of the system; nothing is downloaded."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"needs a browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def wait_until(page, expression, argument=None):
    """Ask again and again until ``expression`` holds; a waiting inside the page would need what its policy forbids."""
    end = time.monotonic() + SECONDS
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"never true in {SECONDS} s: {expression}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def open_page(browser):
    """A context manager: a file in the browser. In the end nothing may have been complained of or fetched."""

    @contextmanager
    def open_file(path, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        wait_until(page, "document.querySelectorAll('.plot .main-svg').length > 0")
        try:
            yield page
            assert complaints == []
            assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
        finally:
            context.close()

    return open_file
