"""The arithmetic of a plan, against runs and known sizes."""

import pytest
import torch

from freshkv import generate, load
from freshkv.core.errors import InputError
from freshkv.evaluation.plan import (
    PlanInputs,
    inputs_of,
    plan_evaluation,
    published_step_seconds,
    sequence_bytes,
    steps_of,
)
from freshkv.evaluation.preset import TASKS, find_preset
from freshkv.evaluation.shapes import OFFICIAL, ModelShape


def inputs(**changes):
    defaults = {"problems": 100, "gen_length": 256, "block_length": 32, "step_seconds": 0.1}
    return PlanInputs(**{**defaults, **changes})


@pytest.mark.parametrize(("model", "parameters"), [("LLaDA-8B", 8_015_581_184), ("Dream-v0", 7_615_616_512)])
def test_official_models_have_the_weights_that_their_authors_count(model, parameters):
    names = [name for name in OFFICIAL if model in name]
    assert names
    assert {ModelShape.of(name).parameters for name in names} == {parameters}


@pytest.mark.parametrize("model", ["tiny-llada", "tiny-dream"])
def test_a_shape_is_that_of_the_model(model):
    loaded = load(model)
    shape = ModelShape.of(model)
    assert shape.spec == loaded.network_spec
    assert shape.parameters == sum(weight.numel() for weight in loaded.parameters())


@pytest.mark.parametrize("policy", ["none", "dual", "d2cache", "dllm"])
def test_the_cache_is_as_large_as_that_of_a_run(policy):
    model = load("tiny-dream")
    run = generate(model, torch.ones((2, 5), dtype=torch.long), policy=policy, gen_length=4)
    planned = inputs(prompt_tokens=5, gen_length=4, block_length=4, batch_size=2, dtype="float32")
    assert plan_evaluation(ModelShape.of("tiny-dream"), policy, planned).cache_bytes == run.stats.cache_bytes


def test_weights_take_two_bytes_each_in_bfloat16():
    shape = ModelShape.of("tiny-llada")
    for dtype, size in (("bfloat16", 2), ("float32", 4)):
        assert plan_evaluation(shape, "none", inputs(dtype=dtype)).weight_bytes == size * shape.parameters


def test_time_and_cost_follow_from_steps():
    plan = plan_evaluation(ModelShape.of("tiny-llada"), "none", inputs(devices=8, price_per_hour=2.0))
    assert plan.steps == 13 * 256  # 100 problems on 8 devices: some have 13
    assert plan.hours == pytest.approx(13 * 256 * 0.1 / 3600)
    assert plan.device_hours == pytest.approx(8 * plan.hours)
    assert plan.cost == pytest.approx(2 * plan.device_hours)
    assert plan.total_bytes == plan.weight_bytes + plan.cache_bytes + plan.working_bytes


def test_devices_that_hold_a_model_together_share_it_and_no_problems():
    shape = ModelShape.of("Dream-org/Dream-v0-Instruct-7B")
    alone, together = (
        plan_evaluation(shape, "dllm", inputs(devices=devices, tensor_parallel=True)) for devices in (1, 4)
    )
    assert together.steps == alone.steps == 100 * 256
    assert together.device_hours == pytest.approx(4 * alone.device_hours)
    assert together.weight_bytes == alone.weight_bytes / 4
    # keys and values are shared, the outputs that are carried are whole in each
    per_token = 28 * (2 * 4 * 128 // 4 + 3584) * 2
    assert together.cache_bytes == (1024 + 256) * per_token
    assert together.working_bytes < alone.working_bytes
    with pytest.raises(InputError, match="8 devices cannot share 4 key-value heads"):
        plan_evaluation(shape, "none", inputs(devices=8, tensor_parallel=True))


def test_more_tokens_a_step_are_fewer_steps():
    assert steps_of(inputs(problems=1)) == 256
    assert steps_of(inputs(problems=1, tokens_per_step=2.5)) == 103


def test_a_batch_needs_memory_and_no_other_time():
    shape = ModelShape.of("GSAI-ML/LLaDA-8B-Instruct")
    one, four = (plan_evaluation(shape, "d2cache", inputs(batch_size=size)) for size in (1, 4))
    assert four.cache_bytes == 4 * one.cache_bytes
    assert four.working_bytes == 4 * one.working_bytes
    assert (four.weight_bytes, four.hours) == (one.weight_bytes, one.hours)


def test_keys_and_values_of_llada_take_half_a_megabyte_a_token():
    two = inputs(prompt_tokens=1, gen_length=1, block_length=1)
    shape = ModelShape.of("GSAI-ML/LLaDA-8B-Base")
    assert sequence_bytes(shape, "prefix", two).cache == 2 * 2 * 32 * 4096 * 2 == 2 * 524_288
    assert sequence_bytes(shape, "dllm", two).cache == 2 * 3 * 524_288 // 2
    dream = ModelShape.of("Dream-org/Dream-v0-Base-7B")
    assert sequence_bytes(dream, "prefix", two).cache == 2 * 2 * 28 * 4 * 128 * 2


def test_the_logits_of_a_long_block_can_be_the_largest_tensor():
    shape = ModelShape.of("GSAI-ML/LLaDA-8B-Instruct")
    short = plan_evaluation(shape, "none", inputs(block_length=32))
    long = plan_evaluation(shape, "none", inputs(block_length=256, prompt_tokens=8))
    assert long.working_bytes == 256 * 126464 * (2 + 12)
    assert short.working_bytes < long.working_bytes


@pytest.mark.parametrize("task", TASKS)
def test_published_times_are_those_of_the_papers_table(task):
    tokens = {"gsm8k": 2.77, "mbpp": 2.48, "humaneval": 4.99, "math-500": 3.08}[task]
    assert published_step_seconds("llada-instruct", task, "none") == pytest.approx(1 / tokens)
    own = published_step_seconds("llada-instruct", task, "d2cache:current_k=16")
    assert own is not None
    assert own < 1 / tokens


def test_what_was_never_published_is_not_guessed():
    assert published_step_seconds("llada-base", "gsm8k", "none") is None
    assert published_step_seconds("llada-instruct", "gsm8k", "dual") is None


def test_a_plan_takes_lengths_and_blocks_from_the_settings():
    settings = find_preset("d2cache-paper").settings("humaneval", "llada-instruct", "d2cache")
    assert inputs_of(settings, 0.1) == inputs(problems=164, gen_length=512, block_length=512)


def test_a_task_of_ones_own_needs_its_numbers():
    from freshkv.evaluation.evaluation import plain_settings

    with pytest.raises(InputError, match="set gen_length"):
        inputs_of(plain_settings("mine"), 0.1)
    with pytest.raises(InputError, match="--problems"):
        inputs_of(plain_settings("mine", gen_length=8), 0.1)
    assert inputs_of(plain_settings("mine", gen_length=8), 0.1, problems=3).problems == 3


@pytest.mark.parametrize("change", [{"problems": 0}, {"step_seconds": 0}, {"devices": 0}, {"price_per_hour": -1}])
def test_inputs_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        inputs(**change)
