"""Write what the documentation takes from the code: tables of policies, decoders and plugins, and pictures.

Tables stand between ``<!-- generated: NAME -->`` and ``<!-- end -->``. A test compares them with the code, so that a
page that is not up to date fails. Run ``python -m docs.tools.generate`` after changing a policy, a decoder or a plugin.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import freshkv
from docs.tools import families, pictures, study
from freshkv.compare import DEFAULT_POLICIES
from freshkv.core.policy import LayerwisePolicy
from freshkv.core.registry import builtin_classes
from freshkv.core.spec import describe_fields

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
_MARKED = re.compile(r"(?P<open><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL)


def render(text: str) -> str:
    """A page with its generated parts as the code says now."""
    return _MARKED.sub(lambda match: f"{match['open']}\n{PARTS[match['name']]()}\n\n{match['close']}", text)


def outputs() -> Iterator[tuple[Path, str]]:
    """Every file that this module writes, with the text that it should have."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if _MARKED.search(text):
            yield page, render(text)
    for draw in pictures.PICTURES:
        picture = draw()
        yield DOCS / "pictures" / f"{picture.name}.svg", picture.render()


def policies_table() -> str:
    """Every policy: what it does, on which path, when it is exact."""
    lines = [
        (link, _idea(cls).removesuffix("."), "carried" if issubclass(cls, LayerwisePolicy) else "narrow", _exact(cls))
        for cls, link, _ in _policies()
    ]
    return _table(("policy", "what it does", "path", "exact when"), lines)


def policy_options_table() -> str:
    """Every policy: options, paper, origin."""
    lines = [(link, _options(cls), _paper(cls), origin) for cls, link, origin in _policies()]
    return _table(("policy", "options and defaults", "paper", "origin"), lines)


def decoders_table() -> str:
    """Every built-in decoder: what it does, options, paper."""
    classes = builtin_classes("freshkv.decoders", freshkv.Decoder).values()
    shared = describe_fields(freshkv.RankedDecoder)
    lines = [
        (f"[`{cls.name}`]({cls.name}.md)", _idea(cls).removesuffix("."), _options(cls, shared), _paper(cls))
        for cls in classes
    ]
    return _table(("decoder", "what it does", "options of its own, and defaults", "paper"), lines)


def plugins_list() -> str:
    """A section for each package in ``plugins/``, from its pyproject.toml and its classes."""
    return "\n\n".join(_plugin_section(folder) for folder in _plugin_folders())


def families_table() -> str:
    """Every built-in family of networks."""
    return _table(
        ("model_type", "checkpoints", "logits", "a row sees", "tensor parallel", "tested against"), families.rows()
    )


PARTS = {
    "policies": policies_table,
    "policy-options": policy_options_table,
    "decoders": decoders_table,
    "plugins": plugins_list,
    "families": families_table,
    "study": study.tables,
}


def _policies() -> Iterator[tuple[type[Any], str, str]]:
    """Class, link and origin of every policy: built-in ones in the order of the comparison, then those of plugins."""
    built_in = builtin_classes("freshkv.policies", freshkv.CachePolicy)
    for name in sorted(built_in, key=lambda name: (*DEFAULT_POLICIES, name).index(name)):
        yield built_in[name], f"[`{name}`]({name}.md)", "built-in"
    for folder in _plugin_folders():
        package = _project(folder)["name"]
        for cls in _plugin_policies(folder):
            yield cls, f"[`{cls.name}`](../plugins.md#{package})", f"`{package}`"


def _plugin_folders() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))


def _project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _plugin_policies(folder: Path) -> list[type[Any]]:
    """What the plugin's hook returns; it need not be installed."""
    sys.path.append(str(folder))
    try:
        modules = [importlib.import_module(name) for name in _project(folder)["entry-points"]["freshkv"].values()]
    finally:
        sys.path.remove(str(folder))
    return [cls for module in modules for cls in getattr(module, "freshkv_policies", list)()]


def _plugin_section(folder: Path) -> str:
    project = _project(folder)
    title = project["description"].removesuffix(".")
    parts = [f"## {project['name']}\n\n{title}. Install it with `pip install ./plugins/{folder.name}`."]
    for cls in _plugin_policies(folder):
        about = " ".join((cls.__doc__ or "").replace("``", "`").split())
        parts.append(f"**`{cls.name}`**: {_idea(cls)} {about}\n\nOptions: {_options(cls)}.")
    return "\n\n".join(parts)


def _idea(cls: type[Any]) -> str:
    """The first sentence of the module, which says what the policy or decoder does."""
    module = sys.modules[cls.__module__]
    return " ".join((module.__doc__ or "").split("\n\n")[0].replace("``", "`").split())


def _exact(cls: type[Any]) -> str:
    """What the docstring promises after "Exact when"."""
    about = " ".join((cls.__doc__ or "").replace("``", "`").split())
    found = re.search(r"Exact when (.*?)\.(?:\s|$)", about)
    return found[1] if found is not None else "always" if "Always exact" in about else "not said"


def _options(cls: type[Any], besides: Container[str] = ()) -> str:
    fields = describe_fields(cls).items()
    return ", ".join(f"`{name}={default}`" for name, default in fields if name not in besides) or "none"


def _paper(cls: type[Any]) -> str:
    if not cls.paper:
        return "none"
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", cls.paper)


def _table(head: Iterable[str], lines: Iterable[tuple[str, ...]]) -> str:
    rows = [tuple(head), *lines]
    text = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join([text[0], "|---" * len(rows[0]) + "|", *text[1:]])


def main() -> None:
    """Write everything that is not up to date."""
    for path, text in outputs():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
