"""The package's public names."""

from __future__ import annotations

import subprocess
import sys

import freshkv


def test_functions_keep_their_names_when_the_folders_are_imported() -> None:
    code = (
        "import freshkv, freshkv.policies.none as none, freshkv.decoders.wino; "
        "print(*freshkv.policies(), *freshkv.decoders(), none.NoCache.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"none", "prefix", "dual", "dllm", "d2cache", "confidence", "wino"} <= set(done.stdout.split())


def test_all_public_names_exist() -> None:
    assert all(hasattr(freshkv, name) for name in freshkv.__all__)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, freshkv, freshkv.cli; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(freshkv, "polices")
