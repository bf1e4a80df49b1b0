"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RUN = "How tokens are decoded"
MACHINE = "Where it runs"

Model = Annotated[str, typer.Option("--model", help="A bundled model, a folder, or the hub id of a checkpoint.")]
GenLength = Annotated[
    int | None,
    typer.Option("--gen-length", help="Tokens of a response; a task has its own number.", rich_help_panel=RUN),
]
BlockLength = Annotated[
    int,
    typer.Option(
        "--block-length",
        help="Tokens decoded before the next block opens; divides the length (equal to it: one block).",
        rich_help_panel=RUN,
    ),
]
Temperature = Annotated[
    float, typer.Option("--temperature", help="0 takes the most probable token.", rich_help_panel=RUN)
]
TopK = Annotated[int | None, typer.Option("--top-k", help="Sample among so many tokens only.", rich_help_panel=RUN)]
TopP = Annotated[
    float | None, typer.Option("--top-p", help="Sample among tokens of this probability only.", rich_help_panel=RUN)
]
StopAtEos = Annotated[
    bool, typer.Option("--stop-at-eos", help="End a response at its first end token.", rich_help_panel=RUN)
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Blocks, temperature and top-p of published evaluations of this checkpoint, whatever else is given.",
        rich_help_panel=RUN,
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Leave out the tokenizer's chat template.", rich_help_panel=RUN)]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype", help="float32, bfloat16, float16, or auto: as the checkpoint is stored.", rich_help_panel=MACHINE
    ),
]
Quantise = Annotated[
    str | None,
    typer.Option(
        "--quantise",
        help="Keep the linear layers in fewer bits: int8, int4 (torchao) or nf4 (bitsandbytes).",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...", rich_help_panel=MACHINE)]
TensorParallel = Annotated[
    bool,
    typer.Option(
        "--tensor-parallel",
        help="Under torchrun: all processes hold the model together, each a share on its own device.",
        rich_help_panel=MACHINE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="CPU threads. Left out: one for the bundled models, which gain nothing from more, else torch's choice.",
        rich_help_panel=MACHINE,
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        help="here: in this process. ray: by workers on Ray, on this machine or on a cluster.",
        rich_help_panel=MACHINE,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of Ray: auto (one that runs on this machine), HOST:PORT, ray://HOST:PORT, or local: start one. Left "
        "out: one that runs here, else a new one.",
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="On Ray: at most so many workers, each with the model. Left out: as many as there is room for.",
        rich_help_panel=MACHINE,
    ),
]
StrictPlugins = Annotated[
    bool,
    typer.Option(
        "--strict-plugins", help="Stop if an installed plugin does not work, where it would be skipped with a warning."
    ),
]
