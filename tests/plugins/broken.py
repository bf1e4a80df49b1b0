"""Plugins that do not work, each in its own way, and two that do."""

from __future__ import annotations

from textwrap import dedent

from attrs import frozen

from tests.plugins.install import Package

POLICY = """
import attrs
import freshkv
from freshkv import CachePolicy, Decoder, Selection, Task, hookimpl


class Policy(CachePolicy):
    name = "{name}"

    def select(self, view):
        return Selection(predict=view.everything)

"""
RETURNS = """
@hookimpl
def freshkv_policies():
    return [Policy]
"""


@frozen
class Broken:
    """A plugin that does not work, and what is said of it."""

    kind: str  #: what is wrong
    package: Package
    words: tuple[str, ...]  #: the line holds them
    whole: bool = True  #: the whole plugin is left out
    target: str | None = None  #: of the entry point, if not the module


def broken(kind: str, source: str, *words: str, whole: bool = True, target: str | None = None) -> Broken:
    name = f"freshkv-{kind}"
    text = POLICY.format(name=kind) + dedent(source) if "\n" in source else source
    return Broken(kind, Package(name, text), words, whole, target)


def returning(kind: str, classes: str, *words: str, body: str = "", hook: str = "freshkv_policies") -> Broken:
    """A plugin whose hook returns what cannot be used."""
    code = f"{dedent(body)}\n@hookimpl\ndef {hook}():\n    return {classes}\n"
    return broken(kind, code, *words, whole=False)


GOOD = Package(
    "freshkv-good",
    POLICY.format(name="good")
    + dedent("""
    freshkv_api = 1

    class Words(Task):
        name = "words"
        gen_length = 1
        words = ("3",)

        def draw(self, randomness, *, held_out):
            return freshkv.Problem("3", "3")

    @hookimpl
    def freshkv_policies():
        return [Policy]

    @hookimpl
    def freshkv_tasks():
        return [Words]
    """),
)
#: says no version, and adds one class that cannot be used beside one that can
HALF = Package(
    "freshkv-half",
    POLICY.format(name="half")
    + dedent("""
    class Second(Policy):
        name = "dual"

    @hookimpl
    def freshkv_policies():
        return [Second, Policy]
    """),
)

BROKEN = (
    broken("missing-module", "import surely_not_there", "named 'surely_not_there'", "module surely_not_there"),
    broken("raising-import", 'raise OSError("first\\nsecond")', "cannot be imported (OSError: first second)"),
    broken(
        "odd-error",
        "class Odd(Exception):\n    def __str__(self):\n        return None\n\nraise Odd\n",
        "cannot be imported (Odd: a Odd)",
    ),
    broken("exiting-import", "import sys; sys.exit(3)", "cannot be imported (SystemExit: 3)"),
    broken("syntax", "def (:", "cannot be imported (SyntaxError"),
    broken("other-freshkv", "from freshkv import KeyPolicy", "cannot import name 'KeyPolicy'", "belong together"),
    broken("no-target", "", "has no attribute 'Hooks'", target="freshkv_no_target:Hooks"),
    broken(
        "misspelled-hook",
        "@hookimpl\ndef freshkv_polices():\n    return [Policy]\n",
        "no hook 'freshkv_polices'. Did you mean 'freshkv_policies'? To mend it, rename it.",
    ),
    broken(
        "wrong-signature",
        "@hookimpl\ndef freshkv_policies(config):\n    return [Policy]\n",
        "wrong signature (hookimpl definition: freshkv_policies(config)",
        "write it without arguments",
    ),
    broken(
        "unmarked-hook",
        "def freshkv_policies():\n    return [Policy]\n",
        "function freshkv_policies is not marked",
        "@freshkv.hookimpl",
    ),
    broken("no-hook", "\n", "it implements no hook", "freshkv_policies, freshkv_decoders"),
    broken("api-newer", f"freshkv_api = 7\n{RETURNS}", "version 7 of the plugin interface", "upgrade freshkv or"),
    broken("api-older", f"freshkv_api = 0\n{RETURNS}", "version 0 of the plugin", "upgrade freshkv-api-older"),
    broken("api-nonsense", f"freshkv_api = '1.x'\n{RETURNS}", "freshkv_api is '1.x'", "set freshkv_api = 1"),
    returning("raising-hook", "1 / 0", "hook freshkv_policies of", "raised ZeroDivisionError"),
    returning("no-list", "Policy", "Policy'>, not a list", "return a list"),
    returning("clash-built-in", "[Dual]", "'dual' is taken by DualCache of freshkv itself", "rename it",
              body='class Dual(Policy):\n    name = "dual"\n'),
    returning("pair-clash", "[Good]", "'good' is taken by Policy of plugin 'good' of freshkv-good 1.2", "rename one",
              body='class Good(Policy):\n    name = "good"\n'),
    returning("abstract", "[Half]", "Half of plugin", "it has no method select", "write select",
              body='class Half(CachePolicy):\n    name = "abstract"\n'),
    returning("nameless", "[Nameless]", "it has no name", "give it a name",
              body="class Nameless(CachePolicy):\n    select = Policy.select\n"),
    returning("odd-name", "[Odd]", "its name is 'my policy'", "letters, digits",
              body='class Odd(Policy):\n    name = "my policy"\n'),
    returning("wrong-base", "[Loose]", "not a subclass of CachePolicy", "freshkv.CachePolicy",
              body='class Loose:\n    name = "loose"\n'),
    returning("object", "[Loud()]", "returned <many lines>, which is not a class",
              body='class Loud:\n    def __repr__(self):\n        return "<many\\n\\nlines>"\n'),
    returning("odd-fields", "[Odd]", "types of its fields cannot be read (NameError", "TYPE_CHECKING",
              body='@attrs.frozen\nclass Odd(Policy):\n    name = "odd-fields"\n    steps: "Nowhere" = 1\n'),
    returning("odd-paper", "[Odd]", "its paper is not text",
              body='class Odd(Policy):\n    name = "odd-paper"\n    paper = 2505\n'),
    returning("decoder-base", "[Policy]", "not a subclass of Decoder", hook="freshkv_decoders"),
    returning("task-facts", "[Bare]", "it has no gen_length, no words", hook="freshkv_tasks",
              body='class Bare(Task):\n    name = "bare"\n    draw = None\n'),
    returning("task-arguments", "[Needy]", "cannot be built without arguments", hook="freshkv_tasks",
              body='class Needy(Task):\n    name, gen_length, words, draw = "needy", 1, ("3",), None\n'
                   "    def __init__(self, path):\n        pass\n"),
    returning("model-protocol", "[Model]", "does not follow the Network protocol", "embed_rows", hook="freshkv_models",
              body="from transformers import PreTrainedModel\nclass Model(PreTrainedModel):\n    pass\n"),
    returning("model-clash", "[Model]", "model_type 'llada' is taken by LLaDAModelLM", hook="freshkv_models",
              body="from freshkv.models import LLaDAModelLM\nclass Model(LLaDAModelLM):\n    pass\n"),
)  # fmt: skip
