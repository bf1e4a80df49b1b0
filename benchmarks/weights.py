"""How weights lie while they are measured: the choices of ``--weights``."""

from __future__ import annotations

import argparse
from typing import Literal

from freshkv.models.prepacked import Prepacked

WEIGHTS: dict[str, Prepacked | Literal[False]] = {"compiled": "compiled", "prepacked": True, "plain": False}


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option ``--weights``; its value is a name of WEIGHTS."""
    parser.add_argument(
        "--weights",
        choices=list(WEIGHTS),
        default="compiled",
        help="laid out for freshkv's own products (needs a C++ compiler) or for oneDNN's, or plain, as they are loaded",
    )
