"""``freshkv``: one file for each command."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from freshkv.cli import check, compare, doctor, drift, evaluate, generate, listing, new, options, report
from freshkv.cli.failures import reports_errors
from freshkv.core.version import VERSION

#: they warn whenever Transformers is imported beside torchao, of what nobody who runs a command can change
NOISY = ("torchao", "torch.utils._pytree")

app = typer.Typer(
    name="freshkv",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compare", help=compare.HELP)(compare.compare)
app.command("generate", help=generate.HELP)(generate.generate)
app.command("list", help=listing.HELP)(listing.list_known)
app.command("new", help=new.HELP)(new.new)
app.command("check", help=check.HELP)(check.check)
app.command("report", help=report.HELP)(report.report)
app.command("eval", help=evaluate.HELP)(evaluate.evaluate)
app.command("drift", help=drift.HELP)(drift.drift)
app.command("doctor", help=doctor.HELP)(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"freshkv {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    strict_plugins: options.StrictPlugins = False,
) -> None:
    """Write, check and compare cache policies for diffusion language models.

    Start with: freshkv compare
    """
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if strict_plugins:
        _check_plugins(debug=False)


@reports_errors
def _check_plugins(debug: bool) -> None:
    from freshkv.models.extensions import check_plugins

    check_plugins()


def main() -> None:
    """The entry point of the installed command."""
    app()
