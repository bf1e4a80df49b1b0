"""What is compared: policies x decoders on tasks. Checked when it is made, before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
import torch
from attrs import field, frozen

from freshkv.compare.lineup import read_budget
from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError, SpecError, unknown_name
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.core.spec import Configurable, expand_spec
from freshkv.models.placement import DTYPES
from freshkv.models.tasks import Task, tasks

C = TypeVar("C", bound=Configurable)

BASELINE = "none"
DEFAULT_POLICIES = ("none", "prefix", "dual", "dllm", "d2cache")
MOST_ENTRIES = 1000  #: of an experiment; more is most often a grid that grew too large by mistake


@frozen
class Entry:
    """One line of a comparison: a policy with a decoder."""

    policy: CachePolicy
    decoder: Decoder

    @property
    def key(self) -> tuple[str, str]:
        """The two spec strings in normal form."""
        return self.policy.spec, self.decoder.spec

    def __str__(self) -> str:
        return f"{self.policy.spec} with {self.decoder.spec}"


def _listed(values: Any) -> tuple[Any, ...]:
    """A tuple; a single value is a list of one."""
    return (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)


def _resolve_all(values: Any, resolve: Callable[[Any], C]) -> dict[str, C]:
    """Spec string to object, each once and in order, with grids and ranges written out."""
    found: dict[str, C] = {}
    for value in _listed(values):
        specs = expand_spec(value) if isinstance(value, str) else (value,)
        try:
            objects = [resolve(spec) for spec in specs]
        except SpecError as error:
            if len(specs) == 1:
                raise
            raise SpecError(f"{error} It is one of the {len(specs)} that {value!r} stands for.") from error
        found |= {each.spec: each for each in objects}
    return found


def _policies(values: Any) -> tuple[CachePolicy, ...]:
    """Policies by spec string or themselves, each once; the baseline comes first where it is not among them."""
    chosen = _resolve_all(values, resolve_policy)
    baseline = {} if BASELINE in chosen else {BASELINE: resolve_policy(BASELINE)}
    return tuple((baseline | chosen).values())


def _decoders(values: Any) -> tuple[Decoder, ...]:
    return tuple(_resolve_all(values, resolve_decoder).values())


def _tasks(values: Any) -> tuple[Task, ...]:
    chosen = tasks() if values is None else _listed(values)
    return tuple({task.name: task for task in map(resolve_task, chosen)}.values())


def resolve_task(value: str | Task) -> Task:
    """A task from its name, or itself."""
    if isinstance(value, Task):
        return value
    known = tasks()
    if not isinstance(value, str):
        raise InputError(f"task is {value!r}; expected a name ({', '.join(sorted(known))}) or a Task.")
    if value not in known:
        raise unknown_name("task", value, known)
    return known[value]()


@frozen(kw_only=True, eq=False)
class Experiment:
    """Every policy with every decoder on every task, with the same prompts and seeds.

    Policies, decoders and tasks are given by spec string, by name, or as objects; ``none`` is added where it is
    missing, because agreement and speed-up refer to it. A spec string may hold grids and ranges, such as
    ``d2cache:current_k=8|16,rollout_p=0.05..0.2..0.05``; what it stands for more than once is taken once. At most 1000
    entries. Raises SpecError, UnknownNameError or InputError.
    """

    model: str = field(default="tiny-llada", converter=str)  #: as ``freshkv.load`` takes it
    tasks: tuple[Task, ...] = field(default=None, converter=_tasks)  #: None: all
    policies: tuple[CachePolicy, ...] = field(default=DEFAULT_POLICIES, converter=_policies)
    decoders: tuple[Decoder, ...] = field(default=("confidence",), converter=_decoders)
    problems: int = 20  #: of each task, for each seed
    seeds: tuple[int, ...] = field(default=(0,), converter=_listed)  #: each draws problems of its own
    repeats: int = 1  #: how often each entry decodes each problem; more than once tells more about times only
    gen_length: int | None = None  #: response tokens; None: the task's own number
    block_length: int | None = 16  #: response tokens; None: one block
    batch_size: int = 1  #: sequences decoded together
    temperature: float = field(default=0.0, converter=float)
    top_k: int | None = None
    top_p: float | None = None
    stop_at_eos: bool = False
    raw_prompts: bool = False  #: leave out the tokenizer's chat template
    dtype: str = "auto"  #: "auto": the checkpoint's own
    device: str = "cpu"
    threads: int | None = None  #: CPU threads; None: one for the bundled models, else as torch is set
    #: a policy (its mean rows a pass) or a share of the canvas that all others are turned to; None: as they are given
    match_budget: str | float | None = field(default=None, converter=read_budget)
    regret: bool = False  #: run an oracle and a random policy beside each policy, at its own budget

    def __attrs_post_init__(self) -> None:
        for name in ("tasks", "policies", "decoders", "seeds"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty; expected at least one.")
        _check_number_of_entries(len(self.policies), len(self.decoders))
        for name in ("problems", "repeats", "batch_size"):
            _check_count(name, getattr(self, name))
        for name in ("gen_length", "block_length", "threads"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        _check_seeds(self.seeds)
        Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        _check_dtype(self.dtype)
        _check_device(self.device)
        for task in self.tasks:
            self._check_blocks(task)

    def _check_blocks(self, task: Task) -> None:
        length = self.gen_length_of(task)
        if self.block_length is not None and length % self.block_length != 0:
            divisors = ", ".join(str(n) for n in range(1, length + 1) if length % n == 0)
            raise InputError(
                f"block_length {self.block_length} does not divide the {length} tokens of a response to '{task.name}'; "
                f"expected one of {divisors}."
            )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All pairs, a decoder at a time."""
        return tuple(Entry(policy, decoder) for decoder in self.decoders for policy in self.policies)

    @property
    def sequences(self) -> int:
        """How many records a whole run ends with."""
        return len(self.entries) * len(self.tasks) * len(self.seeds) * self.problems * self.repeats

    def gen_length_of(self, task: Task) -> int:
        """Response tokens for ``task``."""
        return task.gen_length if self.gen_length is None else self.gen_length


#: names of everything that can be given
FIELDS = tuple(each.name for each in attrs.fields(Experiment) if each.init)


def _check_number_of_entries(policies: int, decoders: int) -> None:
    if policies * decoders > MOST_ENTRIES:
        raise InputError(
            f"{policies} policies with {decoders} decoders make {policies * decoders} entries; at most {MOST_ENTRIES} "
            "are allowed. Leave out some values of a grid, or make several experiments."
        )


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least 1.")


def _check_seeds(seeds: tuple[Any, ...]) -> None:
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InputError(f"seeds holds {seed!r}; expected whole numbers of at least 0.")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds is {seeds}; expected each number once.")


def _check_dtype(dtype: object) -> None:
    if dtype != "auto" and dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}, auto.")


def _check_device(device: object) -> None:
    try:
        torch.device(device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device is {device!r} ({reason}); expected cpu, cuda, cuda:1, ...") from error
