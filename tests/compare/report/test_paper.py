"""Tables for papers: what is bold, what the caption says, and that no text becomes a command."""

import re

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from freshkv.compare.records import Header, SequenceRecord
from freshkv.compare.report import Source, latex_table, markdown_table, paper_table
from freshkv.compare.report.latex import escape_latex
from freshkv.compare.report.markdown import escape_markdown
from freshkv.compare.report.paper import ACCURACY, HEADINGS, SPEEDUP
from freshkv.compare.results import Results
from freshkv.compare.summary import summarize


def make_source(tmp_path, solved, seconds, count=40):
    """Policies on one task: how many of ``count`` problems each solves, and seconds a problem."""
    policies = list(solved)
    experiment = {
        "tasks": ["weave"], "decoders": ["threshold"], "policies": policies, "problems": count, "seeds": [0],
        "gen_lengths": {"weave": 64}, "block_length": 16, "batch_size": 1, "dtype": "bfloat16",
    }  # fmt: skip
    environment = {"device": "A GPU & co_1", "threads": 4, "freshkv": "1", "torch": "2"}
    header = Header(created="now", model="model_1", experiment=experiment, environment=environment)
    records = tuple(
        SequenceRecord(
            task="weave", seed=0, problem=problem, policy=policy, decoder="threshold", correct=problem < solved[policy],
            text="", response=(1, 2), canvas=10, forwards=5, rows_computed=20.0, tokens_produced=2,
            seconds=seconds[policy] * (1 + 0.001 * problem), peak_bytes=1, cache_bytes=1, batch=1,
        )
        for policy in policies
        for problem in range(count)
    )  # fmt: skip
    results = Results(path=tmp_path / "r.jsonl", header=header, sequences=records, failures=())
    return Source(
        model="model_1", setting="", name="model_1", one_of_several=False, results=results, summaries=summarize(results)
    )


def bold(table):
    """The policies whose accuracy is bold, and those whose speed-up is."""
    lines = [line for block in table.blocks for line in block.lines]
    return tuple([line.cells[0] for line in lines if place in line.bold] for place in (ACCURACY, SPEEDUP))


def test_the_best_is_bold_only_if_it_is_best_by_more_than_chance(tmp_path):
    seconds = {"none": 2.0, "prefix": 1.5, "dual": 1.0}
    clear = make_source(tmp_path, {"none": 10, "prefix": 12, "dual": 35}, seconds)
    assert bold(paper_table(clear)) == (["dual"], ["dual"])
    slight = make_source(tmp_path, {"none": 30, "prefix": 31, "dual": 33}, seconds)
    assert bold(paper_table(slight)) == ([], ["dual"])


def test_the_best_must_be_better_than_every_other_policy(tmp_path):
    shared = make_source(tmp_path, {"none": 5, "prefix": 35, "dual": 35}, {"none": 2.0, "prefix": 1.0, "dual": 1.0})
    assert bold(paper_table(shared)) == ([], [])


def test_the_uncached_run_can_be_the_best(tmp_path):
    source = make_source(tmp_path, {"none": 38, "prefix": 10, "dual": 12}, {"none": 1.0, "prefix": 1.2, "dual": 1.1})
    assert bold(paper_table(source)) == (["none"], [])


def test_too_few_problems_for_an_interval_make_nothing_bold(tmp_path):
    source = make_source(tmp_path, {"none": 0, "dual": 5}, {"none": 2.0, "dual": 1.0}, count=5)
    assert bold(paper_table(source)) == ([], [])


@pytest.mark.parametrize("form", [markdown_table, latex_table])
def test_the_caption_states_what_a_reader_must_know(tmp_path, form):
    source = make_source(tmp_path, {"none": 38, "dual": 12}, {"none": 1.0, "dual": 1.1})
    text = form(paper_table(source)).replace("\\", "")
    for fact in ("n = 40 problems", "decoder threshold", "blocks of 16", "bfloat16", "A GPU & co_1", "Holm", "64 resp"):
        assert fact in text, fact


def test_markdown_has_a_line_for_each_entry(tmp_path):
    source = make_source(tmp_path, {"none": 38, "dual": 12}, {"none": 1.0, "dual": 0.5})
    lines = [line for line in markdown_table(paper_table(source)).splitlines() if line.startswith("|")]
    cells = [line.strip("|").split("|") for line in lines]
    assert {len(row) for row in cells} == {len(HEADINGS) + 2}
    assert [row[2].strip() for row in cells[2:]] == ["none", "dual"]
    assert "**0.95**" in lines[2]
    assert "**2.00" in lines[3]


def test_latex_is_a_booktabs_table_whose_lines_have_all_cells(tmp_path):
    source = make_source(tmp_path, {"none": 38, "dual": 12}, {"none": 1.0, "dual": 0.5})
    text = latex_table(paper_table(source))
    for command in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\end{tabular}",
        r"\label{tab:model-1}",
        r"\emph{weave,",
    ):
        assert command in text
    lines = [line for line in text.splitlines() if line.startswith(("none &", "dual &"))]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [len(HEADINGS) - 1] * 2
    assert r"\textbf{0.95}" in lines[0]
    assert r"\textbf{2.00$\times$}" in lines[1]
    assert r"A GPU \& co\_1" in text


def test_specs_and_names_are_escaped_where_they_stand(tmp_path):
    source = make_source(tmp_path, {"none": 3, "dual": 2}, {"none": 1.0, "dual": 0.5})
    named = evolve(source.summaries[1], policy=r"evil_1:x={$\input|y</b>}")
    source = evolve(source, summaries=(source.summaries[0], named))
    assert r"evil\_1:x=\{\$\textbackslash{}input\textbar{}y\textless{}/b\textgreater{}\}" in latex_table(
        paper_table(source)
    )
    assert r"evil\_1:x=\{\$\\input\|y\</b\>\}" in markdown_table(paper_table(source))


COMMANDS = re.compile(
    r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[{}$&#%_]|\$-\$|\$\\times\$"
)


@given(st.text())
def test_no_text_is_a_command_in_latex(text):
    escaped = escape_latex(text)
    assert not set(COMMANDS.sub("", escaped)) & set('\\{}$&#%_^~<>|"\n')


@given(st.text())
def test_no_text_is_markup_in_markdown(text):
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    assert not re.search(r"[`*_{}\[\]<>|#~&$]", re.sub(r"\\.", "", escaped))
    assert re.sub(r"\\(.)", r"\1", escaped) == " ".join(text.split())
