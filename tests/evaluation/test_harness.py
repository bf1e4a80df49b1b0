"""Local tasks through lm-eval's own Python interface."""

import json

import pytest
import torch

import freshkv
from freshkv.compare import Experiment, run_experiment, summarize
from freshkv.evaluation.harness import FreshkvLM, repetitions
from freshkv.models.tasks import tasks
from tests.evaluation.local_tasks import CHOICE, GENERATE, ROLLING, answers, write_task


@pytest.fixture
def sums():
    return tasks()["sums"]().generate(6, 0)


def scores(results, task, metric):
    return results["results"][task][f"{metric},none"]


def test_accuracy_and_rows_are_those_of_compare(tmp_path, sums, evaluate):
    write_task(tmp_path, "local-sums", GENERATE, answers(sums), max_gen_toks=64, do_sample=False)
    model = {
        "pretrained": "tiny-llada",
        "policy": "prefix",
        "decoder": "threshold:threshold=0.6",
        "block_length": 16,
        "batch_size": 3,
    }
    results = evaluate(tmp_path, "local-sums", model=model)
    experiment = Experiment(
        tasks="sums", policies=["none", "prefix"], decoders=model["decoder"], problems=6, block_length=16, batch_size=3
    )
    compared = run_experiment(experiment, tmp_path / "compared.jsonl")
    entry = next(each for each in summarize(compared) if each.policy == "prefix")
    assert scores(results, "local-sums", "exact_match") == entry.accuracy
    measured = results["config"]["freshkv"]["generation"]
    assert measured["forwards"] == sum(each.forwards for each in compared.sequences if each.policy == "prefix")
    assert measured["rows_share"] == pytest.approx(entry.rows_share)
    assert measured["answer_tokens"] == 6 * 64


def test_what_was_used_is_written_beside_the_scores(tmp_path, sums, evaluate):
    write_task(tmp_path, "short", GENERATE, answers(sums[:1]), max_gen_toks=8)
    written = evaluate(tmp_path, "short", model={"policy": "d2cache:current_k=2+sigma=5", "block_length": 4})["config"][
        "freshkv"
    ]
    assert written["options"]["policy"] == "d2cache:current_k=2,sigma=5"
    assert written["options"]["block_length"] == 4
    assert written["version"] == freshkv.__version__
    assert written["generation"]["answers"] == 1
    json.dumps(written)


def test_choices_are_ranked_by_their_log_likelihood(tmp_path, evaluate):
    """The bundled model knows how ``sums`` goes on: 7 + 1, then 4 + 5."""
    terms = " ".join(["1 5"] * 32)
    right = "8 9"
    rows = [
        {"prompt": f"sums {terms} = 7 4", "choices": ["3 1", right, "0 0"], "right": 1},
        {"prompt": f"sums {terms} = 7 4", "choices": [right, "9 8", "8 8"], "right": 0},
    ]
    write_task(tmp_path, "choices", CHOICE, rows)
    results = evaluate(
        tmp_path, "choices", model={"pretrained": "tiny-llada", "mc_samples": 8, "check_greedy": False, "batch_size": 8}
    )
    assert scores(results, "choices", "acc") == 1.0


def test_whole_texts_are_scored_in_pieces_that_fit(tmp_path, evaluate, session):
    text = "1 2 3 4 5 6 7 8 9 1 2"
    write_task(tmp_path, "texts", ROLLING, [{"prompt": text}])
    results = evaluate(tmp_path, "texts", model={"max_length": 5, "mc_samples": 4, "check_greedy": False})
    bits = scores(results, "texts", "bits_per_byte")
    of = session(mc_samples=4, check_greedy=False)
    ids = of.subject.tokenizer.encode(text)
    end = of.subject.tokenizer.eos_token_id
    # the last piece is short, so more of what comes before it fits
    pieces = [([end], ids[0:4]), ([ids[3]], ids[4:8]), (ids[6:8], ids[8:11])]
    total = sum(record.log_likelihood for record in of.score(pieces))
    assert bits == pytest.approx(-total / len(text) / 0.6931471805599453, rel=1e-5)


def test_a_task_that_wants_log_likelihoods_is_told_what_is_greedy(subject, checkpoint):
    from lm_eval.api.instance import Instance

    lm = FreshkvLM(subject=subject, pretrained=checkpoint, mc_samples=4)
    prompt = torch.tensor([subject.tokenizer.encode("1 2 3")])
    words = subject.tokenizer.decode(
        freshkv.generate(subject.model, prompt, gen_length=3).responses[0].tolist()
    ).split()
    target, wrong = f" {' '.join(words)}", f" {' '.join(words[:2])} {'4' if words[2] != '4' else '5'}"
    instances = [
        Instance("loglikelihood", {}, ("1 2 3", target), 0, ("t", 0, 1)),
        Instance("loglikelihood", {}, ("1 2 3", wrong), 1, ("t", 0, 1)),
        Instance("loglikelihood", {}, ("", " 4 5"), 2, ("t", 0, 1)),
    ]
    results = lm.loglikelihood(instances, disable_tqdm=True)
    assert all(value < 0 for value, _ in results)
    assert [is_greedy for _, is_greedy in results[:2]] == [True, False]


def test_stop_strings_of_a_task_end_its_answers(tmp_path, evaluate):
    rows = [{"prompt": "1 2 3", "answer": "x"}]
    write_task(tmp_path, "whole", GENERATE, rows, max_gen_toks=8)
    write_task(tmp_path, "stopped", GENERATE, rows, max_gen_toks=8, until=["9", " "])
    responses = {
        name: evaluate(tmp_path, name, log_samples=True)["samples"][name][0]["resps"][0][0]
        for name in ("whole", "stopped")
    }
    assert responses["stopped"] == responses["whole"].partition(" ")[0].partition("9")[0]


def test_a_chat_has_its_examples_as_turns(tmp_path, chat_checkpoint, evaluate):
    rows = [{"prompt": f"{number} 1", "answer": "3"} for number in range(3)]
    path = write_task(tmp_path, "chat", GENERATE, rows, max_gen_toks=4)
    path.write_text(path.read_text() + "fewshot_split: test\n")
    results = evaluate(
        tmp_path,
        "chat",
        model={"pretrained": chat_checkpoint},
        num_fewshot=1,
        apply_chat_template=True,
        limit=1,
        log_samples=True,
    )
    prompt = results["samples"]["chat"][0]["arguments"][0][0]
    assert [word for word in prompt.split() if word in ("user", "assistant")] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert prompt.endswith("assistant")
    assert results["config"]["freshkv"]["generation"]["prompt_tokens"] == len(prompt.split())


def test_a_checkpoint_without_a_chat_template_says_so(tmp_path, evaluate):
    write_task(tmp_path, "chat", GENERATE, [{"prompt": "1", "answer": "3"}], max_gen_toks=4)
    with pytest.raises(freshkv.FreshkvError, match="no chat template"):
        evaluate(tmp_path, "chat", apply_chat_template=True)


def test_a_long_prompt_is_cut_with_a_warning(tmp_path, evaluate):
    write_task(tmp_path, "long", GENERATE, [{"prompt": " ".join("123456789" * 3), "answer": "x"}], max_gen_toks=8)
    with pytest.warns(UserWarning, match="cut at the left"):
        results = evaluate(tmp_path, "long", model={"max_length": 20})
    assert results["config"]["freshkv"]["generation"]["prompt_tokens"] == 12


def test_lm_evals_own_cache_is_filled_and_used(tmp_path, evaluate, monkeypatch):
    write_task(tmp_path, "cached", GENERATE, [{"prompt": f"1 {n}", "answer": "x"} for n in range(3)], max_gen_toks=4)
    first = evaluate(tmp_path, "cached", use_cache=str(tmp_path / "lm"), log_samples=True)
    monkeypatch.setattr(FreshkvLM, "generate_until", lambda *_: pytest.fail("runs again"))
    again = evaluate(tmp_path, "cached", use_cache=str(tmp_path / "lm"), log_samples=True)
    texts = [[sample["resps"] for sample in run["samples"]["cached"]] for run in (first, again)]
    assert texts[0] == texts[1]


def test_repetitions_that_only_make_processes_equal_are_not_drawn_anew():
    class Request:
        def __init__(self, repeats):
            self.repeats = repeats

    once, twice = Request(1), Request(2)
    assert repetitions([twice, twice, once, once, once]) == [0, 1, 0, 0, 0]


def test_wrong_options_end_before_a_model_is_loaded(tmp_path, evaluate, monkeypatch):
    import freshkv.evaluation.session as module

    monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("loads"))
    write_task(tmp_path, "short", GENERATE, [{"prompt": "1", "answer": "x"}])
    with pytest.raises(freshkv.FreshkvError, match="Did you mean 'policy'"):
        evaluate(tmp_path, "short", model={"polcy": "dual"})
