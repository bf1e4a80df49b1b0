"""``python -m freshkv.evaluation``: the command line of lm-eval, which knows freshkv then, however it is installed."""

from __future__ import annotations

import sys

from freshkv.core.errors import InputError
from freshkv.evaluation.requirements import require_harness


def main() -> None:
    """Register the model, then hand over."""
    try:
        require_harness()
    except InputError as error:
        sys.exit(str(error))
    from lm_eval.__main__ import cli_evaluate

    from freshkv.evaluation import harness  # noqa: F401 - importing it registers the model

    cli_evaluate()


if __name__ == "__main__":
    main()
