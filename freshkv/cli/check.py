"""``freshkv check``: the conformance kit without a test file."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from freshkv.cli.console import messages, output, say
from freshkv.cli.failures import FAILED, Debug, reports_errors

if TYPE_CHECKING:
    from freshkv.testing.conformance.kit import Kit, Outcome

HELP = (
    "Check that a policy or decoder keeps the contract.\n\n"
    "Runs every check of freshkv.testing on tiny random networks: form, purity, no hidden state, independence of batch "
    "and padding, termination, and equality with the uncached run. A bare name is checked with its default options and "
    "others; a spec with options as it is. Exit code 1 if a check fails.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv check dual\n"
    "  freshkv check dllm:kp=10,kr=5 --examples 50\n"
    "  freshkv check threshold --decoder\n"
)
MISSING = "freshkv check needs hypothesis: pip install 'freshkv[testing]'"
STYLES = {"passed": "green", "failed": "bold red", "blocked": "yellow", "left out": "dim"}


@reports_errors
def check(
    name: Annotated[str, typer.Argument(help="A policy or decoder: a name or spec string.", show_default=False)],
    policy: Annotated[bool, typer.Option("--policy", help="It is a policy. Left out: found by its name.")] = False,
    decoder: Annotated[bool, typer.Option("--decoder", help="It is a decoder.")] = False,
    exact: Annotated[
        str | None,
        typer.Option("--exact", help="Options of a policy that are said to give the uncached run, as a spec."),
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=1, help="Runs that each check looks at.")] = 10,
    debug: Debug = False,
) -> None:
    """Run all checks, show a table, and explain what failed."""
    if find_spec("hypothesis") is None:
        say(MISSING, style="red")
        raise typer.Exit(FAILED)
    from freshkv.testing.conformance import decoder_checks, policy_checks
    from freshkv.testing.conformance.kit import Kit
    from freshkv.testing.conformance.subject import Subject

    kind = kind_of(name, policy=policy, decoder=decoder)
    checks = policy_checks.POLICY_CHECKS if kind == "policy" else decoder_checks.DECODER_CHECKS
    outcomes = _run(Kit(Subject.of(name, kind, exact), checks, examples))
    console = output()
    console.print(_table(kind, name, outcomes))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        console.print(Text(f"\n{outcome.check.sentence}", style="bold red"), Text(outcome.message), sep="\n")
    if failed:
        raise typer.Exit(FAILED)


def kind_of(name: str, *, policy: bool, decoder: bool) -> str:
    """``policy`` or ``decoder``. Raises InputError or UnknownNameError where that cannot be told."""
    from freshkv.core.errors import InputError, unknown_name
    from freshkv.core.registry import decoders, policies
    from freshkv.core.spec import split_spec

    if policy and decoder:
        raise InputError("--policy and --decoder exclude each other.")
    if policy or decoder:
        return "policy" if policy else "decoder"
    bare, _ = split_spec(name)
    kinds = [kind for kind, known in (("policy", policies()), ("decoder", decoders())) if bare in known]
    if not kinds:
        raise unknown_name("policy or decoder", bare, {*policies(), *decoders()})
    if len(kinds) > 1:
        raise InputError(f"'{bare}' is a policy and a decoder; say --policy or --decoder.")
    return kinds[0]


def _run(kit: Kit) -> list[Outcome]:
    console = messages()
    status = console.status("") if console.is_terminal else None
    outcomes = []
    with nullcontext() if status is None else status:
        for number, (name, checked) in enumerate(kit.checks.items(), start=1):
            if status is not None:
                status.update(f"{number} of {len(kit.checks)}: {checked.sentence}")
            outcomes.append(kit.outcome(name))
    return outcomes


def _table(kind: str, name: str, outcomes: list[Outcome]) -> Table:
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    verdict = f"{failed} of {len(outcomes)} checks fail" if failed else "keeps the contract"
    table = Table(
        title=Text(f"{kind} {name} {verdict}"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("check", overflow="fold")
    table.add_column("result")
    for outcome in outcomes:
        table.add_row(outcome.check.sentence, Text(outcome.status, style=STYLES[outcome.status]))
    return table
