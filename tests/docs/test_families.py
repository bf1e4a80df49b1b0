"""The table of model families names all of them, and what it says of tests is what they do."""

from __future__ import annotations

from docs.tools import families
from freshkv.models.registry import BUILT_IN
from tests.models.families import VARIANTS, of_transformers


def test_every_built_in_family_is_in_the_table() -> None:
    assert set(families.KNOWN) == {family.config_class.model_type for family in BUILT_IN}


def test_what_families_are_tested_against_is_what_tests_compare_with() -> None:
    recorded = {name for name, (_, tested) in families.KNOWN.items() if "recordings" in tested}
    assert recorded == {"llada", "Dream"}  # tests/models/test_networks.py
    compared = {model_type: type(of_transformers(variant)[0]) for variant, (model_type, _) in VARIANTS.items()}
    for name in families.KNOWN.keys() - recorded:
        # the same weights have the same network under either name of Qwen and Llama
        other = compared.get(name) or compared[f"a2d-{name}"]
        assert f"`{other.__name__}`" in families.KNOWN[name][1]
