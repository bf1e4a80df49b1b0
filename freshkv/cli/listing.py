"""``freshkv list``: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from freshkv.cli.console import output
from freshkv.cli.failures import Debug, reports_errors

if TYPE_CHECKING:
    from freshkv.core.decoder import Decoder
    from freshkv.core.policy import CachePolicy

HELP = (
    "List policies, decoders, models and tasks.\n\n"
    "Fields are shown with their defaults; change them in a spec string, such as d2cache:current_k=16,sigma=5. What "
    "plugins add is listed with the distribution that it comes from.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv list\n"
    "  freshkv list policies\n"
)


class Kind(StrEnum):
    """What can be listed."""

    POLICIES = "policies"
    DECODERS = "decoders"
    MODELS = "models"
    TASKS = "tasks"


@reports_errors
def list_known(
    kind: Annotated[Kind | None, typer.Argument(help="Only these.")] = None,
    debug: Debug = False,
) -> None:
    """Print a table for each kind."""
    console = output()
    for chosen in Kind if kind is None else [kind]:
        console.print(TABLES[chosen]())


def _policies() -> Table:
    from freshkv.core.registry import policies

    return _configurable("Policies", dict(policies()))


def _decoders() -> Table:
    from freshkv.core.registry import decoders

    return _configurable("Decoders", dict(decoders()))


def _configurable(title: str, classes: dict[str, type[CachePolicy]] | dict[str, type[Decoder]]) -> Table:
    from freshkv.compare.origins import origin_of
    from freshkv.core.spec import describe_fields

    table = _table(title, "name", "fields and defaults", "paper", "origin")
    for name, cls in classes.items():
        fields = "\n".join(f"{field}={default}" for field, default in describe_fields(cls).items())
        table.add_row(name, fields or "-", cls.paper or "-", origin_of(cls))
        table.add_section()
    return table


def _models() -> Table:
    from freshkv.compare.origins import origin_of
    from freshkv.models.registry import bundled_models, families

    table = _table("Models", "name", "what it is", "origin")
    for name in bundled_models():
        table.add_row(name, "trained on the tasks below", "built-in")
    for name, cls in families().items():
        table.add_row(f"any {name} checkpoint", "a folder or hub id, read without remote code", origin_of(cls))
    return table


def _tasks() -> Table:
    from freshkv.compare.origins import origin_of
    from freshkv.models.tasks import tasks

    table = _table("Tasks", "name", "what it is", "tokens", "origin")
    for name, cls in tasks().items():
        about = (cls.__doc__ or "-").split("\n\n")[0].replace("``", "'")
        table.add_row(name, about, str(cls.gen_length), origin_of(cls))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    return table


TABLES: dict[Kind, Callable[[], Table]] = {
    Kind.POLICIES: _policies,
    Kind.DECODERS: _decoders,
    Kind.MODELS: _models,
    Kind.TASKS: _tasks,
}
