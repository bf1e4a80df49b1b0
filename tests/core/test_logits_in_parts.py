"""Logits of many positions are computed in parts: the same run, with less memory at a time."""

import pytest
import torch

import freshkv
from freshkv.core import predict

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

    monkeypatch.setattr(predict, "MOST_LOGITS", most * model.network_spec.vocabulary)
    monkeypatch.setattr(predict, "logits_at", watched)
    parts = freshkv.generate(model, prompt, policy="d2cache:current_k=20", decoder=decoder, **RUN)
    assert torch.equal(parts.sequences, whole.sequences)
    for first, second in zip(parts.trace, whole.trace, strict=True):
        assert torch.equal(first.predicted, second.predicted)
        torch.testing.assert_close(first.confidence, second.confidence)
    # never more at a time than allowed, but for the two blocks that the decoder is handed
    assert max(sizes) <= max(most, 2 * 8)
    assert sum(sizes) == sum(int(step.predicted.sum()) for step in whole.trace)
