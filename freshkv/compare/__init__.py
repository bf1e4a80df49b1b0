"""Experiments: the same prompts and seeds for every policy and decoder, results on disk as they come, and summaries."""

from freshkv.compare.experiment import DEFAULT_POLICIES, Entry, Experiment
from freshkv.compare.findings import describe_findings
from freshkv.compare.records import FailureRecord, Header, SequenceRecord
from freshkv.compare.results import Results, read_results
from freshkv.compare.runner import Progress, run_experiment
from freshkv.compare.summary import EntrySummary, summarize

__all__ = [
    "DEFAULT_POLICIES",
    "Entry",
    "EntrySummary",
    "Experiment",
    "FailureRecord",
    "Header",
    "Progress",
    "Results",
    "SequenceRecord",
    "describe_findings",
    "read_results",
    "run_experiment",
    "summarize",
]
