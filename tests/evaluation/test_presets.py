"""Published settings, number by number."""

import re
from itertools import product

import pytest

from freshkv.core.errors import FreshkvError, InputError
from freshkv.core.registry import resolve_policy
from freshkv.evaluation.preset import TASKS, VARIANTS, Preset, find_preset, merge_specs, presets, variant_of
from tests.docs.pages import ROOT

MINIMAL = """
paper = "arXiv:2509.23094"
source = "https://example.org"
about = "For a test."
tasks = ["gsm8k"]
variants = ["llada-base"]

[[rules]]
harness_task = "gsm8k"
gen_length = 32
"""


@pytest.fixture
def paper():
    return find_preset("d2cache-paper")


def test_the_paper_that_compares_policies_has_all_tasks_and_models(paper):
    assert (paper.tasks, paper.variants) == (TASKS, VARIANTS)
    for task, variant, policy in product(TASKS, VARIANTS, ("none", "prefix", "dual", "dllm", "d2cache")):
        settings = paper.settings(task, variant, policy)
        assert settings.gen_length == (256 if task in ("gsm8k", "math-500") else 512)
        assert settings.few_shot == {"gsm8k": 4, "math-500": 4, "humaneval": 0, "mbpp": 3}[task]
        assert settings.temperature == 0.0
        assert settings.top_p == (0.9 if variant.startswith("dream") else None)
        assert settings.chat is variant.endswith("instruct")
        assert settings.runs_code is (task in ("humaneval", "mbpp"))
        assert resolve_policy(settings.policy).name == policy


@pytest.mark.parametrize(
    ("variant", "policy", "block"),
    [
        ("llada-base", "none", None), ("llada-instruct", "none", 32), ("dream-instruct", "dllm", 32),
        ("llada-base", "prefix", 32), ("dream-base", "dual", 32), ("llada-instruct", "d2cache", None),
    ],
)  # fmt: skip
def test_blocks_are_as_published(paper, variant, policy, block):
    assert paper.settings("gsm8k", variant, policy).block_length == block


def test_the_intervals_of_dllm_are_those_of_the_documentation(paper):
    """The page lists them by task; the file has a rule for each."""
    page = (ROOT / "docs/how-to/load-a-checkpoint.md").read_text(encoding="utf-8")
    found = 0
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in TASKS and all(re.fullmatch(r"\d+, \d+", cell) for cell in cells[1:5]):
            for variant, cell in zip(
                ("llada-base", "llada-instruct", "dream-base", "dream-instruct"), cells[1:5], strict=True
            ):
                kp, kr = (int(number) for number in cell.split(","))
                policy = resolve_policy(paper.settings(cells[0], variant, "dllm").policy)
                assert (policy.kp, policy.kr, policy.rou) == (kp, kr, 0.25), (cells[0], variant)
                found += 1
    assert found == 16


def test_d2cache_has_its_options_and_its_prior(paper):
    settings = paper.settings("mbpp", "llada-instruct", "d2cache")
    policy = resolve_policy(settings.policy)
    assert (policy.rollout_p, policy.current_k, policy.sigma, policy.inflate_w) == (0.1, 32, 10.0, 0)
    assert settings.decoder == "confidence:prior_sigma=10"


def test_fast_dllm_decodes_in_parallel_with_a_cache_only():
    preset = find_preset("fast-dllm-paper")
    assert preset.settings("gsm8k", "llada-instruct", "none").decoder == "confidence"
    cached = preset.settings("gsm8k", "llada-instruct", "dual")
    assert (cached.decoder, cached.block_length, cached.few_shot) == ("threshold", 32, 5)


def test_llada_decodes_1024_tokens_in_one_block():
    settings = find_preset("llada-paper").settings("mbpp", "llada-base", "none")
    assert (settings.gen_length, settings.block_length) == (1024, None)


def test_options_of_a_policy_win_over_the_published_ones(paper):
    policy = resolve_policy(paper.settings("gsm8k", "llada-instruct", "dllm:kr=3").policy)
    assert (policy.kp, policy.kr) == (50, 3)
    assert merge_specs("dllm:kp=50,kr=7", "dllm:kr=3") == "dllm:kp=50,kr=3"


def test_what_the_user_sets_wins_and_is_named(paper):
    settings = paper.settings("gsm8k", "llada-instruct", "none", {"gen_length": 128, "few_shot": 4})
    assert (settings.gen_length, settings.few_shot) == (128, 4)
    assert settings.overridden == ("gen_length",)
    assert settings.preset == "d2cache-paper"


def test_a_policy_that_no_paper_knows_takes_what_holds_for_all(paper):
    settings = paper.settings("gsm8k", "llada-instruct", "dkv-decode")
    assert (settings.policy, settings.block_length) == ("dkv-decode", 32)


def test_a_preset_says_what_it_does_not_cover():
    with pytest.raises(InputError, match="no settings for the task mbpp; it has gsm8k, humaneval"):
        find_preset("fast-dllm-paper").settings("mbpp", "llada-base", "none")
    with pytest.raises(InputError, match="no settings for the model dream-base"):
        find_preset("llada-paper").settings("gsm8k", "dream-base", "none")


def test_every_preset_says_where_its_numbers_are_from():
    for preset in presets().values():
        assert preset.source.startswith("https://github.com/")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("gen_length = 32", "gen_lenght = 32"), "Did you mean 'gen_length'"),
        (("gen_length = 32", "gen_length = 32\nblock_length = 7"), "block_length 7 does not divide"),
        (("gen_length = 32", 'policy = "dull"'), "Unknown policy 'dull'"),
        (("gen_length = 32", 'policies = ["dual"]\npolicy = "dllm:kp=3"'), "sets the options of dllm"),
        (("gen_length = 32", "few_shot = -1"), "few_shot is -1"),
        (("gen_length = 32", "chat = 1"), "chat is 1"),
        (('tasks = ["gsm8k"]', 'tasks = ["gsm9k"]'), "Unknown task 'gsm9k'"),
        (('variants = ["llada-base"]', 'variants = ["lama"]'), "Unknown kind of model"),
        (('paper = "arXiv:2509.23094"', 'paper = "a blog"'), "paper"),
        (('harness_task = "gsm8k"', ""), "harness_task"),
        (('about = "For a test."', ""), "about"),
        (("[[rules]]", "[[rules"), "cannot be read"),
    ],
)
def test_a_preset_that_is_wrong_cannot_be_made(change, message):
    Preset.read("test", MINIMAL)
    with pytest.raises((FreshkvError, ValueError), match=re.escape(message)):
        Preset.read("test", MINIMAL.replace(*change))


@pytest.mark.parametrize(
    ("model", "variant"),
    [
        ("GSAI-ML/LLaDA-8B-Base", "llada-base"), ("GSAI-ML/LLaDA-8B-Instruct", "llada-instruct"),
        ("GSAI-ML/LLaDA-1.5", "llada-instruct"), ("Dream-org/Dream-v0-Base-7B", "dream-base"),
        ("Dream-org/Dream-v0-Instruct-7B", "dream-instruct"), ("tiny-llada", "llada-base"),
    ],
)  # fmt: skip
def test_a_name_says_which_kind_a_model_is(model, variant):
    assert variant_of(model) == variant


def test_a_name_that_does_not_say_is_asked_about():
    with pytest.raises(InputError, match="--variant"):
        variant_of("checkpoints/step-1000")
