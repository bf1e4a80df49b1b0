"""Experiments: the same prompts and seeds for every policy and decoder, results on disk as they come, and summaries."""

from freshkv.compare.beside import Keep
from freshkv.compare.cluster.place import OnRay
from freshkv.compare.drift import Deviation, Drift, DriftSummary, measure_drift
from freshkv.compare.experiment import DEFAULT_POLICIES, Entry, Experiment
from freshkv.compare.experiment_file import read_experiment_file
from freshkv.compare.experiment_writer import write_experiment_file
from freshkv.compare.findings import describe_findings
from freshkv.compare.guards import FairnessWarning, check_fairness
from freshkv.compare.lineup import Entrant, Lineup, Setting
from freshkv.compare.pareto import Candidate, Point, find_candidates, find_standings
from freshkv.compare.progress import Progress
from freshkv.compare.records import FailureRecord, Header, SequenceRecord
from freshkv.compare.regret import Regret, Scale, describe_regret, measure_regret
from freshkv.compare.rerun import Agreement, compare_runs, experiment_of
from freshkv.compare.results import Results, read_results
from freshkv.compare.runner import run_experiment
from freshkv.compare.statistics import PairedDifference
from freshkv.compare.summary import EntrySummary, summarize
from freshkv.compare.sweep import Sweep, read_sweep, run_sweep
from freshkv.compare.timing import Speedup

__all__ = [
    "DEFAULT_POLICIES",
    "Agreement",
    "Candidate",
    "Deviation",
    "Drift",
    "DriftSummary",
    "Entrant",
    "Entry",
    "EntrySummary",
    "Experiment",
    "FailureRecord",
    "FairnessWarning",
    "Header",
    "Keep",
    "Lineup",
    "OnRay",
    "PairedDifference",
    "Point",
    "Progress",
    "Regret",
    "Results",
    "Scale",
    "SequenceRecord",
    "Setting",
    "Speedup",
    "Sweep",
    "check_fairness",
    "compare_runs",
    "describe_findings",
    "describe_regret",
    "experiment_of",
    "find_candidates",
    "find_standings",
    "measure_drift",
    "measure_regret",
    "read_experiment_file",
    "read_results",
    "read_sweep",
    "run_experiment",
    "run_sweep",
    "summarize",
    "write_experiment_file",
]
