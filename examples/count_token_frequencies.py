"""Count how frequent each token is in a text, for the decoder ``pc-sampler``, and use the table.

python examples/count_token_frequencies.py --corpus answers.txt --model path/to/LLaDA-8B
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import freshkv
from freshkv.decoders.pc_sampler import PCSamplerDecoder
from freshkv.decoders.token_frequency import count_file
from freshkv.models.tasks import Weave


def main() -> None:
    """Count with the model's own tokenizer; without a corpus, in the answers of a bundled task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a text file; left out: 50 answers of the task weave")
    parser.add_argument("--model", default="tiny-llada")
    parser.add_argument("--output", type=Path, default=Path("frequencies.json"))
    arguments = parser.parse_args()

    corpus = arguments.corpus
    if corpus is None:
        corpus = Path("weave-answers.txt")
        corpus.write_text("\n".join(problem.answer for problem in Weave().generate(50, held_out=False)), "utf-8")
    tokenizer = freshkv.load_tokenizer(arguments.model)
    count_file(corpus, tokenizer, arguments.output)

    counts = json.loads(arguments.output.read_text("utf-8"))["counts"]
    for token, count in sorted(counts.items(), key=lambda item: -item[1])[:5]:
        print(f"{count:8} {tokenizer.decode([int(token)])!r}")

    decoder = PCSamplerDecoder(frequencies=str(arguments.output), decay=0.05)
    ids = torch.tensor([tokenizer.encode("weave 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2")])  # long [batch, prompt]
    run = freshkv.generate(freshkv.load(arguments.model), ids, decoder=decoder, gen_length=16)
    print(f"{decoder.spec}: {tokenizer.decode(run.responses[0])}")


if __name__ == "__main__":
    main()
