"""The tables of the page: is it right, and what does it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freshkv.compare.report.columns import ACCURACY, COST, Column, policy_name
from freshkv.compare.report.sources import Source
from freshkv.compare.summary import EntrySummary


def html_tables(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Two tables, with the lines of all sources."""
    return [
        _table("accuracy", "Is it still right?", ACCURACY, sources),
        _table("cost-table", "Is it faster, and what does it cost?", COST, sources),
    ]


def _table(identity: str, title: str, columns: Sequence[Column], sources: Sequence[Source]) -> dict[str, Any]:
    names = ["model"] * (len(sources) > 1) + ["task", "decoder", "policy"]
    lines = [
        {
            "facts": (facts := dict(zip(names, _names(source, summary, names), strict=True))),
            "names": list(facts.values()),
            "cells": [column.read(summary) for column in columns],
        }
        for source in sources
        for summary in source.summaries
    ]
    return {
        "id": identity,
        "title": title,
        "about": " ".join(column.about for column in columns if column.about),
        "menus": _menus(lines, names),
        "headings": [
            *({"title": name, "kind": ""} for name in names),
            *({"title": column.title, "kind": "number"} for column in columns),
        ],
        "lines": lines,
    }


def _names(source: Source, summary: EntrySummary, names: Sequence[str]) -> list[str]:
    known = {"model": source.name, "task": summary.task, "decoder": summary.decoder, "policy": policy_name(summary)}
    return [known[name] for name in names]


def _menus(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """A menu for each name with more than one value."""
    menus = []
    for name in names:
        choices = list(dict.fromkeys(line["facts"][name] for line in lines))
        if len(choices) > 1:
            menus.append({"name": name, "title": name, "choices": choices})
    return menus
