"""Logits and feed-forward networks of many rows are computed in parts: the same run, with less memory at a time."""

import pytest
import torch

import freshkv
from freshkv.core import distribution, predict, turns

RUN = {"gen_length": 24, "block_length": 8, "temperature": 0.7, "seed": 3}


@pytest.fixture
def model():
    return freshkv.load("tiny-dream")


@pytest.mark.parametrize("decoder", ["confidence", "klass", "wino", "threshold:threshold=0.5,score=entropy"])
@pytest.mark.parametrize("most", [1, 2, 11, 24])
def test_parts_change_nothing(monkeypatch, model, decoder, most):
    prompt = torch.randint(14, (2, 9), generator=torch.Generator().manual_seed(1))
    whole = freshkv.generate(model, prompt, policy="d2cache:current_k=20", decoder=decoder, **RUN)
    sizes = []
    logits_at = predict.logits_at

    def watched(network, result, places):
        sizes.append(places.numel())
        return logits_at(network, result, places)

    monkeypatch.setattr(predict, "MOST_LOGITS", 1)
    monkeypatch.setattr(predict, "LEAST_POSITIONS", most)
    monkeypatch.setattr(predict, "logits_at", watched)
    parts = freshkv.generate(model, prompt, policy="d2cache:current_k=20", decoder=decoder, **RUN)
    assert torch.equal(parts.sequences, whole.sequences)
    for first, second in zip(parts.trace, whole.trace, strict=True):
        assert torch.equal(first.predicted, second.predicted)
        torch.testing.assert_close(first.confidence, second.confidence)
    # never more at a time than allowed, but for the two blocks that the decoder is handed
    assert max(sizes) <= max(most, 2 * 8)
    assert sum(sizes) == sum(int(step.predicted.sum()) for step in whole.trace)


@pytest.mark.parametrize("policy", ["dual", "dllm"])
@pytest.mark.parametrize("most", [1, 7, 32])
def test_rows_in_parts_change_nothing(monkeypatch, model, policy, most):
    prompt = torch.randint(14, (2, 9), generator=torch.Generator().manual_seed(1))
    whole = freshkv.generate(model, prompt, policy=policy, **RUN)
    sizes = []
    feed_forward = type(model).feed_forward

    def watched(network, layer, hidden):
        sizes.append(hidden.shape[0])
        return feed_forward(network, layer, hidden)

    monkeypatch.setattr(turns, "most_rows", lambda element_size: most)
    monkeypatch.setattr(distribution, "MOST_SHARES", most)
    monkeypatch.setattr(type(model), "feed_forward", watched)
    parts = freshkv.generate(model, prompt, policy=policy, **RUN)
    assert torch.equal(parts.sequences, whole.sequences)
    assert max(sizes) <= most
    assert len(sizes) == sum(-(-rows // most) for step in whole.trace for rows in step.rows_by_layer)
    assert sum(sizes) == sum(sum(step.rows_by_layer) for step in whole.trace)
