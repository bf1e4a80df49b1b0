"""What an evaluation needs besides freshkv itself."""

from __future__ import annotations

from importlib.util import find_spec

from freshkv.core.errors import InputError

PACKAGES = ("lm_eval", "accelerate")


def require_harness() -> None:
    """Raise InputError unless lm-evaluation-harness is installed."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        names = " and ".join(package.replace("_", "-") for package in missing)
        raise InputError(f"An evaluation needs {names}, not installed here: pip install 'freshkv[eval]'.")
