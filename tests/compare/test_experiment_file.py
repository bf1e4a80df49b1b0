"""Experiment files say what an experiment holds, both ways, and name what is wrong with them."""

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from freshkv import CachePolicy
from freshkv.compare.experiment import FIELDS, Experiment
from freshkv.compare.experiment_file import read_experiment_file
from freshkv.compare.experiment_writer import COMMENTS, write_experiment_file
from freshkv.compare.file_syntax import write_value
from freshkv.compare.sweep import Sweep
from freshkv.core.errors import InputError, SpecError, UnknownNameError
from tests.core.support import examples


def facts(experiment):
    """Everything that an experiment holds, as text and numbers."""
    found = {name: getattr(experiment, name) for name in FIELDS}
    for name in ("policies", "decoders"):
        found[name] = [part.spec for part in found[name]]
    return found | {"tasks": [task.name for task in found["tasks"]]}


lengths = st.none() | st.sampled_from((1, 2, 4, 8))
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
FULL = {
    "model": names,
    "tasks": st.lists(st.sampled_from(("sums", "weave", "sudoku")), min_size=1, unique=True),
    "policies": st.lists(st.sampled_from(("none", "dual", "d2cache:current_k=4|8,sigma=5", "dllm:kr=1..3..1"))),
    "decoders": st.lists(st.sampled_from(("confidence", "threshold:threshold=0.5|0.9")), min_size=1),
    "problems": st.integers(1, 10**6),
    "seeds": st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True),
    "repeats": st.integers(1, 5),
    "block_length": lengths,
    "temperature": st.floats(0, 1e30) | st.sampled_from((1e-7, 1e16, 1e22)),
    "top_k": st.none() | st.integers(1, 100),
    "top_p": st.none() | st.floats(1e-9, 1.0),
    "stop_at_eos": st.booleans(),
    "raw_prompts": st.booleans(),
    "dtype": st.sampled_from(("auto", "bfloat16")),
    "threads": st.none() | st.integers(1, 8),
    "match_budget": st.none() | st.sampled_from((0.25, "dual")),
    "regret": st.booleans(),
}
MATCHED = ["none", "dual", "d2cache"]  #: a budget must be that of a policy that takes part


@st.composite
def sweeps(draw):
    """Fields and axes of any kind."""
    chosen = draw(st.lists(st.sampled_from(sorted(FULL)), unique=True))
    fields = {name: draw(FULL[name]) for name in chosen}
    if fields.get("match_budget") == "dual":
        fields["policies"] = MATCHED
    axes = draw(st.lists(st.sampled_from(("model", "temperature", "block_length", "stop_at_eos")), unique=True))
    lists = {name: draw(st.lists(FULL[name], min_size=1, max_size=3)) for name in axes}
    return Sweep(fields={name: value for name, value in fields.items() if name not in lists}, axes=lists)


@pytest.mark.parametrize("ending", ["toml", "yaml"])
@examples(40)
@given(sweep=sweeps())
def test_what_is_written_is_read_as_the_same(tmp_path_factory, ending, sweep):
    path = tmp_path_factory.mktemp("files") / f"study.{ending}"
    write_experiment_file(path, sweep)
    read = read_experiment_file(path)
    assert [facts(experiment) for experiment in read.experiments] == [facts(each) for each in sweep.experiments]
    assert read.names == sweep.names


@pytest.mark.parametrize("ending", ["toml", "yml"])
def test_a_single_experiment_can_be_written(tmp_path, ending):
    experiment = Experiment(policies=["d2cache:current_k=8|16"], tasks="weave", block_length=None, gen_length=12)
    write_experiment_file(tmp_path / f"new/study.{ending}", experiment)
    (read,) = read_experiment_file(tmp_path / f"new/study.{ending}").experiments
    assert facts(read) == facts(experiment)


def test_grids_stay_grids(tmp_path):
    write_experiment_file(tmp_path / "study.toml", Sweep(fields={"policies": "d2cache:current_k=8|16"}))
    text = (tmp_path / "study.toml").read_text()
    assert 'policies = ["d2cache:current_k=8|16"]' in text
    assert text.startswith("# An experiment")


def test_every_field_has_a_comment_in_a_written_file():
    assert set(COMMENTS) == set(FIELDS)


def test_options_replace_what_a_file_says(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('problems = 50\npolicies = "dual"\n[sweep]\nblock_length = [8, 16]\ntemperature = [0.0, 0.5]\n')
    sweep = read_experiment_file(path, {"problems": 2, "block_length": 4})
    assert [(e.problems, e.block_length, e.temperature) for e in sweep.experiments] == [(2, 4, 0.0), (2, 4, 0.5)]


def test_single_values_may_stand_for_lists_and_none_in_any_form(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("tasks: weave\nseeds: 3\npolicies: [dual]\nblock_length: none\ntop_k:\ntemperature: 1\n")
    (experiment,) = read_experiment_file(path).experiments
    assert (experiment.seeds, experiment.block_length, experiment.top_k) == ((3,), None, None)
    assert (facts(experiment)["tasks"], experiment.temperature) == (["weave"], 1.0)


def test_an_empty_file_is_the_default_experiment(tmp_path):
    for ending in ("toml", "yaml"):
        (tmp_path / f"study.{ending}").write_text("# nothing yet\n")
        assert facts(read_experiment_file(tmp_path / f"study.{ending}").experiments[0]) == facts(Experiment())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\npolices = ["dual"]\n', r"study.toml, line 2: there is no 'polices'. Did you mean 'policies'"),
        ('problems = "3"\n', "line 1: problems is '3'; expected a whole number."),
        ("problems = 3.0\n", "problems is 3.0; expected a whole number."),
        ("problems = true\n", "problems is True; expected a whole number."),
        ('stop_at_eos = "yes"\n', "stop_at_eos is 'yes'; expected true or false."),
        ('temperature = "hot"\n', "temperature is 'hot'; expected a number."),
        ('block_length = "nine"\n', "block_length is 'nine'; expected a whole number or \"none\"."),
        ('seeds = [0, "a"]\n', r"seeds is \[0, 'a'\]; expected a list of whole numbers."),
        ("policies = [1]\n", r"policies is \[1\]; expected a list of texts in quotes."),
        ("match_budget = true\n", "match_budget is True; expected a text in quotes or a number or \"none\"."),
        ('[sweep]\nmodell = ["a"]\n', "line 2: 'modell' cannot be swept. Did you mean 'model'"),
        ('[sweep]\npolicies = ["dual"]\n', "line 2: policies cannot be swept: .* Move it out of 'sweep'."),
        ("[sweep]\ntemperature = 0.5\n", "sweep.temperature is 0.5; expected a list of values, at least one."),
        ("[sweep]\ntemperature = []\n", r"sweep.temperature is \[\]"),
        ('[sweep]\nblock_length = [8, "x"]\n', "line 2: sweep.block_length is 'x'; expected a whole number"),
        ("sweep = 3\n", "line 1: sweep is 3; expected fields with lists"),
        ("problems = 0\n", "study.toml: problems is 0"),
        ("block_length = 8\n[sweep]\nblock_length = [8]\n", "block_length is given twice"),
        ("problems = = 3\n", "study.toml is not valid TOML: .*line 1"),
        ("problems = 3\nproblems = 4\n", "is not valid TOML: .*overwrite"),
        ('polices = ["dual"]\nproblems = "3"\n', "(?s)line 1: .*line 2: "),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, words):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_experiment_file(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: tiny-llada\n\nproblmes: 3\n", "line 3: there is no 'problmes'. Did you mean 'problems'"),
        ("sweep:\n  model: [tiny-llada]\n  modell: [a]\n", "line 3: 'modell' cannot be swept"),
        ("problems: 3\nseeds: [1]\nproblems: 4\n", "line 3: 'problems' is there twice, first in line 1"),
        ("problems: [3\n", "is not valid YAML"),
        ("- dual\n", "holds no fields at its top"),
        ("temperature: 1e-3\n", "temperature is '1e-3'; expected a number"),
        ("problems: !!python/object:os.system {}\n", "is not valid YAML"),
        ("1: 2\n", "there is no '1'"),
    ],
)
def test_what_is_wrong_with_a_yaml_file_is_said_likewise(tmp_path, text, words):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_experiment_file(path)


def test_errors_of_specs_keep_their_type_and_name_the_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('policies = ["d2cache:current_k=8|x"]\n')
    with pytest.raises(SpecError, match=r"study\.toml: current_k=x"):
        read_experiment_file(path)
    path.write_text('policies = ["d2cach"]\n')
    with pytest.raises(UnknownNameError, match=r"study\.toml: Unknown policy 'd2cach'"):
        read_experiment_file(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read the experiment file .*No such file"):
        read_experiment_file(tmp_path / "study.toml")
    with pytest.raises(InputError, match=r"expected one that ends with \.toml or \.yaml"):
        read_experiment_file("dual")
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_experiment_file(tmp_path / "study.toml")


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        write_experiment_file(path, Experiment())
    assert path.read_text() == "mine"
    with pytest.raises(InputError, match="Cannot write"):
        write_experiment_file(path / "study.toml", Experiment())


def test_what_only_a_script_has_cannot_be_written(tmp_path):
    @frozen
    class Mine(CachePolicy):
        name = "mine"

        def select(self, view):
            raise NotImplementedError

    with pytest.raises(InputError, match="'mine' cannot be written to a file, because a file is read by name"):
        write_experiment_file(tmp_path / "study.toml", Experiment(policies=[Mine()]))
    assert not (tmp_path / "study.toml").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1.0e-05"), (1e16, "1.0e+16"), (0.5, "0.5"), (True, "true"), (3, "3"),
        ("a\x7f\x85\u2028", '"a\\u007f\\u0085\\u2028"'),
    ],
)  # fmt: skip
def test_values_are_written_as_both_syntaxes_read_them(value, text):
    assert write_value(value) == text
