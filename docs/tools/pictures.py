"""The pictures of the documentation. ``docs.tools.generate`` writes them to ``docs/pictures/``."""

from __future__ import annotations

from docs.tools.svg import Picture

#: rows refreshed -> stale keys by layer, as the block in docs/concepts.md prints them (a test compares)
STALE = {
    (): ("..S.", "SSSS", "SSSS"),
    (2,): ("....", "SS.S", "SSSS"),
    (2, 3): ("....", "SS..", "SSSS"),
    (0, 1, 2, 3): ("....", "....", "...."),
}

#: policy -> drift of cached values by layer, last first, as the block in docs/how-to/measure-drift.md prints it
DRIFT = {
    "dual": (
        "210010000000000000........00000001",
        "210000000000000000........00001001",
        "100000000000000000........10001101",
        "000000000000000000........00000000",
    ),
    "oracle:budget=0.25": ("..00000000000000000.0.00000.0...00",) * 4,
    "random:budget=0.25": (
        "11000..00.0.0000000.03.3.30000.001",
        "11100..00.0.0000000.03.3.30000.001",
        "10000..00.0.0000000.03.3.31000.001",
        "00000..00.0.0000000.03.3.30000.000",
    ),
}


def step() -> Picture:
    """One step, from view to commit."""
    picture = Picture("step", "One step: view, select, plan, forward, predict, decode, commit", 760, 262)
    width, height, gap = 164, 66, 32
    top = (
        ("1 View", "StepView: facts", "cached"),
        ("2 Select", "policy.select(view)", "fresh"),
        ("3 Plan", "positions → rows", "cached"),
        ("4 Forward", "rows → hidden states", "cached"),
    )
    bottom = (
        ("7 Commit, record", "canvas, trace", "cached"),
        ("6 Decode", "decoder.decode(...)", "fresh"),
        ("5 Predict", "tokens, confidences", "cached"),
    )
    for place, (head, detail, kind) in enumerate((*top, *bottom)):
        column, y = (place, 4) if place < 4 else (place - 4, 144)
        x = column * (width + gap) + 2
        picture.box(x, y, width, height, kind, radius=8)
        picture.text(x + width / 2, y + 28, head, "head")
        picture.text(x + width / 2, y + 49, detail, "code" if kind == "fresh" else "soft")
    for column in range(3):
        x = column * (width + gap) + 2 + width
        picture.arrow((x + 4, 37), (x + gap - 4, 37))
    for column, words in ((0, "Commit"), (1, "Prediction")):
        x = column * (width + gap) + 2 + width
        picture.arrow((x + gap - 4, 177), (x + 4, 177))
        picture.text(x + gap / 2, 136, words, "code soft")
    picture.text(2 * width + 1.5 * gap + 2, 88, "Selection", "code soft")
    last = 3 * (width + gap) + 2 + width / 2
    picture.arrow((last, 74), (last, 177), (last - width / 2 - gap + 4, 177))
    picture.arrow((2 + width / 2, 140), (2 + width / 2, 74))
    picture.text(12 + width / 2, 112, "next step", "soft", anchor="start")
    picture.legend(2, 236, {"fresh": "you write this", "cached": "the core does this"})
    return picture


def stale() -> Picture:
    """Which cached keys are stale after a token was committed."""
    picture = Picture("stale", "Stale keys by layer and row, for four choices of rows to refresh", 760, 246)
    titles = ("nothing refreshed", "row 2", "rows 2 and 3", "everything")
    cell, left, panel = 34, 66, 176
    for layer in range(3):
        picture.text(left - 12, 54 + (2 - layer) * (cell + 4) + 22, f"layer {layer}", "soft", anchor="end")
    picture.text(left - 12, 54 + 3 * (cell + 4) + 20, "token", "soft", anchor="end")
    for number, (title, (refreshed, layers)) in enumerate(zip(titles, STALE.items(), strict=True)):
        x0 = left + number * panel
        picture.text(x0 + 2 * cell + 4, 22, title, "head")
        for layer, marks in enumerate(layers):
            y = 54 + (2 - layer) * (cell + 4)
            for row, mark in enumerate(marks):
                is_stale = mark == "S"
                kind = "stale" if is_stale else "fresh" if row in refreshed else "cached"
                picture.labelled(x0 + row * (cell + 3), y, cell, cell, kind, "S" if is_stale else "")
        for row, token in enumerate("583_"):
            x = x0 + row * (cell + 3)
            picture.text(x + cell / 2, 54 + 3 * (cell + 4) + 20, token, "code")
        if refreshed:
            width = len(refreshed) * (cell + 3) + 5
            picture.box(x0 + min(refreshed) * (cell + 3) - 4, 48, width, 3 * (cell + 4) + 34, "outline")
    picture.legend(left, 218, {"stale": "S: stale", "fresh": "refreshed and right", "cached": "reused and right"})
    picture.box(left + 440, 218, 16, 16, "outline", radius=3)
    picture.text(left + 463, 231, "refreshed rows", "soft", anchor="start")
    return picture


def paths() -> Picture:
    """Narrow and carried path."""
    picture = Picture("paths", "Narrow path: refreshed rows flow. Carried path: all rows flow", 760, 322)
    _path(picture, 62, "narrow: the same R in every layer", ({2, 3}, {2, 3}, {2, 3}), carried=False)
    _path(picture, 452, "carried: R[l] differs by layer", ({0, 1, 2, 3, 4, 5}, {1, 2, 3}, {2}), carried=True)
    picture.legend(62, 268, {"fresh": "row of R: computed, its keys and values (K V) replace the cached ones"})
    picture.legend(62, 294, {"cached": "K V: cached, read only. + : the row flows on and adds its cached outputs"})
    return picture


def _path(picture: Picture, left: int, title: str, layers: tuple[set[int], ...], *, carried: bool) -> None:
    cell, step_x, step_y, bottom = 36, 48, 56, 198
    middle = left + 2.5 * step_x + cell / 2
    picture.text(middle, 20, title, "head")
    flowing = set(range(6)) if carried else layers[0]
    for layer, refreshed in enumerate(layers):
        y = bottom - layer * step_y - cell
        picture.text(left - 12, y + 23, f"layer {layer}", "soft", anchor="end")
        for row in range(6):
            kind = "fresh" if row in refreshed else "cached"
            words = "K V" if row in refreshed or not carried else "+"
            picture.labelled(left + row * step_x, y, cell, cell, kind, words)
    for row in range(6):
        x = left + row * step_x + cell / 2
        if row in flowing:
            for layer in range(4):
                start = bottom - layer * step_y + (18 if layer == 0 else 20)
                picture.arrow((x, start if layer == 0 else start - 2), (x, bottom - layer * step_y + 2))
            picture.text(x, 37, "●")
        picture.text(x, bottom + 36, str(row), "soft")
    picture.text(left - 12, 40, "logits", "soft", anchor="end")
    picture.text(left - 12, bottom + 36, "row", "soft", anchor="end")


def shift() -> Picture:
    """Which row predicts which position."""
    picture = Picture("shift", "LLaDA: row i predicts position i. Dream: row i - 1 predicts position i", 760, 216)
    for left, name, offset in ((70, "LLaDA: row i predicts position i", 0), (450, "Dream: row i - 1 predicts i", 1)):
        cell, gap = 40, 52
        picture.text(left + 2.5 * gap - 6, 20, name, "head")
        for place, number in enumerate(range(16, 22)):
            x = left + place * gap
            predicted, read = number in (18, 19, 20, 21), number + offset in (18, 19, 20, 21)
            picture.labelled(x, 40, cell, 34, "fresh" if predicted else "cached", str(number))
            picture.labelled(x, 130, cell, 34, "fresh" if read else "cached", str(number))
            if read:
                picture.arrow((x + cell / 2, 127), (x + offset * gap + cell / 2, 78))
        picture.text(left - 10, 62, "position", "soft", anchor="end")
        picture.text(left - 10, 152, "row", "soft", anchor="end")
    picture.legend(70, 190, {"fresh": "above: predict=view.in_block; below: the rows that the core refreshes for it"})
    return picture


def shadow() -> Picture:
    """Who sees whom, with shadow rows."""
    picture = Picture("shadow", "Which keys each row sees when positions 5 and 6 have shadow rows", 760, 306)
    keys, cell, left, top = ("3", "4", "5", "6", "7", "s5", "s6"), 32, 190, 44
    queries = (("row 4", set("34567")), ("row 5", set("34567")), ("row 6", set("34567")), ("row 7", set("34567")))
    shadows = (("shadow 5", {"3", "4", "6", "7", "s5", "s6"}), ("shadow 6", {"3", "4", "5", "7", "s5", "s6"}))
    picture.text(left + 92, 14, "keys of the canvas", "soft")
    picture.text(left + 5 * 37 + 45, 14, "of shadows", "soft")
    for column, key in enumerate(keys):
        picture.text(left + column * 37 + (10 if column > 4 else 0) + cell / 2, 36, key, "code")
    for line, (name, seen) in enumerate((*queries, *shadows)):
        y = top + line * 37 + (10 if line > 3 else 0)
        picture.text(left - 14, y + 21, name, "head" if line > 3 else "", anchor="end")
        for column, key in enumerate(keys):
            x = left + column * 37 + (10 if column > 4 else 0)
            picture.labelled(x, y, cell, cell, "fresh" if key in seen else "cached", "" if key in seen else "-")
    notes = (
        "A shadow is a mask token at its position.",
        "It does not see the token that stands there,",
        "so it says what the model would put there",
        "if that token were not known.",
        "",
        "No other row sees it,",
        "and nothing of it is cached.",
    )
    for number, note in enumerate(notes):
        picture.text(left + 288, top + 40 + 24 * number, note, "soft", anchor="start")
    picture.legend(left, top + 6 * 37 + 20, {"fresh": "sees", "cached": "- does not see"})
    return picture


def drift() -> Picture:
    """How far cached values are from the truth, for three policies of about as many rows."""
    picture = Picture("drift", "Drift of cached values by layer and position, for dual, oracle and random", 760, 404)
    cell, left, panel = 19, 66, 122
    for number, (policy, layers) in enumerate(DRIFT.items()):
        top = 26 + number * panel
        picture.text(left, top - 8, policy, "head", anchor="start")
        for line, marks in enumerate(layers):
            y = top + line * (cell + 2)
            picture.text(left - 12, y + 15, f"layer {len(layers) - 1 - line}", "soft", anchor="end")
            for column, mark in enumerate(marks):
                kind = "fresh" if mark == "." else "cached" if mark == "0" else "stale"
                x = left + column * (cell + 1)
                picture.labelled(x, y, cell, cell, kind, mark if kind == "stale" else "")
    picture.legend(left, 382, {"fresh": "refreshed", "cached": "reused, less than 0.001 off"})
    picture.legend(left + 340, 382, {"stale": "reused: 1 to 0.01, 2 to 0.1, 3 more"})
    return picture


PICTURES = (step, stale, paths, shift, shadow, drift)
