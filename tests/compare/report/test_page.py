"""The page in a real browser: it draws, sorts and plays, and takes no text for markup."""

import json
import math
from itertools import pairwise

import pytest

from freshkv.compare.pareto import find_standings, point_of
from freshkv.compare.report.columns import policy_name
from tests.compare.report.conftest import ATTACK, wait_until


@pytest.fixture(scope="module")
def page(open_page, page_file):
    """One page for the tests that only look, or that set what they look at."""
    with open_page(page_file) as page:
        yield page


def texts(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map(each => each.textContent)")


# --- what is drawn


def marks(page, plot=0):
    return page.locator("#pareto .plot").nth(plot).locator(".scatterlayer .points path").count()


def test_the_pareto_plots_show_every_entry_with_error_bars(page, source):
    page.locator("#pareto select").nth(2).select_option("")
    entries = [summary for summary in source.summaries if summary.task == source.tasks[0]]
    assert marks(page, 0) == marks(page, 1) == len(entries) == 6
    boxes = page.locator("#pareto .plot").first.locator(".scatterlayer .points path")
    assert all(boxes.nth(place).bounding_box()["width"] > 4 for place in range(6))
    assert page.locator("#pareto .plot").first.locator("path.yerror").count() == 6
    assert page.locator("#pareto .plot").nth(1).locator("path.xerror").count() == 4  # the uncached run is the unit
    assert page.locator("#pareto .js-line").count() == 2  # the fronts


def drawn(page, plot=0):
    """What a Pareto plot shows: name, x, y and standing of each entry."""
    data = page.evaluate("place => document.querySelectorAll('#pareto .plot')[place].data", plot)
    return [(each["name"], each["x"][0], each["y"][0], each["meta"]) for each in data if "meta" in each]


@pytest.mark.parametrize("task", ["weave", "hostile"])
@pytest.mark.parametrize("decoder", [0, 1])
def test_the_menus_of_the_pareto_plot_choose_what_it_shows(page, source, task, decoder):
    page.locator("#pareto select").nth(1).select_option(task)
    page.locator("#pareto select").nth(2).select_option(source.decoders[decoder])
    entries = [s for s in source.summaries if (s.task, s.decoder) == (task, source.decoders[decoder])]
    for plot, cost in ((0, "rows"), (1, "seconds")):
        points = [point_of(entry, cost) for entry in entries]
        scale = 1 if cost == "rows" else 1000
        assert drawn(page, plot) == [
            (entry.policy, pytest.approx(scale * point.cost), pytest.approx(point.accuracy), standing)
            for entry, point, standing in zip(entries, points, find_standings(points), strict=True)
        ]
        front = {name for name, *_, standing in drawn(page, plot) if standing == "front"}
        assert set(texts(page, f"#pareto figure:nth-child({plot + 1}) .scatterlayer text")) == front


def test_heat_maps_of_drift_are_drawn_for_every_quantity(page):
    menu = page.locator("#drift-maps select").nth(1)
    values = menu.locator("option").evaluate_all("all => all.map(each => each.value)")
    assert len(values) == 8
    for value in values:
        menu.select_option(value)
        wait_until(
            page,
            "words => document.querySelector('#drift-maps .plot').ariaLabel.includes(words)",
            page.evaluate("key => freshkv.data('drift-data').kinds[key].words", value),
        )
        expected = 1 if value in ("kl", "top1") else 2
        images = page.locator("#drift-maps figure:not([hidden]) .heatmaplayer image")
        assert images.count() == expected
        assert images.first.bounding_box()["width"] > 100


def test_a_heat_map_shows_what_was_measured(page, source):
    saved = next(saved for saved in source.drifts if saved.entry[0] == "dual" and saved.case[0] == "weave")
    name = f"dual with {saved.entry[1]}; weave, problem 0"
    page.locator("#drift-maps select").nth(0).select_option(label=name)
    page.locator("#drift-maps select").nth(1).select_option("values_norm")
    wait_until(page, "document.querySelector('#drift-maps .plot').ariaLabel.includes('values: relative')")
    shown = page.evaluate("document.querySelector('#drift-maps .plot').data[0].z")
    expected = saved.drift.values_norm.mean(dim=1).tolist()
    assert [[pytest.approx(value, rel=0.01) for value in row] for row in expected] == shown
    assert f"Of {saved.drift.summary().committed} committed tokens" in page.locator("#drift-maps .about").text_content()


def test_costs_are_drawn_by_part(page, source):
    page.locator("#cost select").nth(2).select_option("")
    bars = page.locator("#cost .plot").first.locator(".barlayer .point path")
    assert bars.count() >= 4 * 6


# --- tables


def column(page, table, place):
    cells = page.locator(f"#{table} tbody tr:not([hidden])").all()
    return [cell.locator("td, th").nth(place).get_attribute("data-sort") for cell in cells]


def test_tables_hold_every_entry_with_its_numbers(page, source):
    rows = texts(page, "#accuracy tbody tr")
    assert len(rows) == len(source.summaries) == 12
    for row, summary in zip(rows, source.summaries, strict=True):
        assert policy_name(summary) in row
        assert f"{summary.accuracy:.2f}" in row


def test_a_heading_sorts_up_and_down(page):
    heads = texts(page, "#cost-table thead th")
    place = heads.index("tokens/s")
    head = page.locator("#cost-table thead th").nth(place)
    head.locator("button").click()
    up = [float(value) for value in column(page, "cost-table", place)]
    assert up == sorted(up)
    assert len(set(up)) > 1
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    assert [float(value) for value in column(page, "cost-table", place)] == sorted(up, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("#cost-table th[aria-sort]").count() == 1


def test_lines_without_a_value_stay_last(page):
    heads = texts(page, "#accuracy thead th")
    place = next(place for place, head in enumerate(heads) if head.startswith("p,"))
    button = page.locator("#accuracy thead th").nth(place).locator("button")
    for _ in range(2):
        button.click()
        values = column(page, "accuracy", place)
        known = [value for value in values if value]
        assert values == known + [""] * 4
        assert len(known) == 8


def test_menus_choose_lines(page, source):
    page.locator("[data-filters=accuracy] select[name=policy]").select_option("dual")
    page.locator("[data-filters=accuracy] select[name=task]").select_option("weave")
    shown = page.locator("#accuracy tbody tr:not([hidden])")
    assert shown.count() == page.locator("#accuracy tbody tr:visible").count() == 2
    page.locator("[data-filters=accuracy] select[name=policy]").select_option("")
    page.locator("[data-filters=accuracy] select[name=task]").select_option("")
    assert shown.count() == 12


# --- the player

RIGHT_IS = "document.querySelector('[data-side=right] [data-part=name]').textContent.startsWith('{}')"


@pytest.fixture
def player(page):
    """The player at its start, with the uncached run at the left and dllm at the right."""
    part = page.locator
    part('#player [data-part="case"]').select_option(label="weave, problem 0")
    part('[data-side="left"] [data-part="entry"]').select_option(label="none with confidence")
    part('[data-side="right"] [data-part="entry"]').select_option(label="dllm:kp=4 with confidence")
    wait_until(page, RIGHT_IS.format("dllm"))
    part('#player [data-part="slider"]').press("Home")
    return page


def response(page, side="left"):
    return texts(page, f"[data-side={side}] .response .cell > :first-child")


def at(page):
    return page.locator('#player [data-part="count"]').text_content()


def saved_run(source, policy, task="weave"):
    return next(s for s in source.traces if s.entry == (policy, "confidence") and s.case[0] == task)


def test_tokens_appear_as_the_player_steps(player, source):
    trace = saved_run(source, "none").trace
    masked = [word == "\u00b7" for word in response(player)]
    assert masked == [True] * 8
    for number, step in enumerate(trace, start=1):
        player.locator('#player [data-part="forward"]').click()
        assert at(player) == f"step {number} of {len(trace)}"
        now_masked = [word == "\u00b7" for word in response(player)]
        assert now_masked == (step.tokens[0, trace.prompt_length :] == trace.mask_token_id).tolist()
        committed = player.locator("[data-side=left] .cell.committed")
        assert committed.count() == int(step.committed.sum())
    assert not any(word == "\u00b7" for word in response(player))


def test_cells_say_which_rows_are_refreshed_in_how_many_layers(player, source):
    for side, policy in (("left", "none"), ("right", "dllm:kp=4")):
        trace = saved_run(source, policy).trace
        player.locator('#player [data-part="slider"]').press("Home")
        for step in trace:
            player.locator('#player [data-part="forward"]').click()
            layers = [step.layer(layer)[0] for layer in range(len(step.rows_by_layer))]
            counts = [sum(bool(layer[place]) for layer in layers) for place in range(trace[0].tokens.shape[1])]
            expected = ["fresh" if n == len(layers) else "some" if n else "" for n in counts]
            classes = player.eval_on_selector_all(
                f"[data-side={side}] .canvas .cell",
                "all => all.map(({classList: c}) => c.contains('fresh') ? 'fresh' : c.contains('some') ? 'some' : '')",
            )
            assert classes == expected
    assert player.locator("[data-side=right] [data-part=layers-box]").is_visible()
    assert not player.locator("[data-side=left] [data-part=layers-box]").is_visible()


def test_confidence_is_the_width_of_the_line_below_a_token(player, source):
    player.locator('#player [data-part="forward"]').click()
    shown = player.eval_on_selector_all("[data-side=left] .cell > .sure", "all => all.map(each => each.style.width)")
    confidence = saved_run(source, "none").trace[0].confidence[0].tolist()
    assert shown == [f"{round(100 * value) if math.isfinite(value) else 0}%" for value in confidence]


def test_the_slider_and_the_keyboard_step(player):
    slider = player.locator('#player [data-part="slider"]')
    slider.focus()
    total = int(slider.get_attribute("max"))
    for key, place in (("End", total), ("ArrowLeft", total - 1), ("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2)):
        player.keyboard.press(key)
        assert at(player) == f"step {place} of {total}"
        assert slider.input_value() == str(place)
    slider.fill("4")
    assert at(player) == f"step 4 of {total}"
    player.locator('#player [data-part="back"]').click()
    assert at(player) == f"step 3 of {total}"


def test_the_player_plays_and_pauses(player):
    player.locator('#player [data-part="speed"]').select_option("12")
    play = player.locator('#player [data-part="play"]')
    play.click()
    assert play.text_content() == "Pause"
    wait_until(player, "Number(document.querySelector('[data-part=slider]').value) >= 2")
    player.locator('#player [data-part="slider"]').press(" ")
    assert play.text_content() == "Play"
    stopped = at(player)
    player.wait_for_timeout(200)
    assert at(player) == stopped


def test_it_stops_at_the_end_and_says_how_it_went(player, source):
    player.locator('#player [data-part="last"]').click()
    verdict = source.verdict(saved_run(source, "none"))
    assert verdict in ("solved", "not solved")
    assert f"Done in 8 passes; {verdict}." in player.locator("[data-side=left] [data-part=state]").text_content()
    assert player.locator('#player [data-part="forward"]').get_attribute("aria-disabled") == "true"


def test_both_sides_show_the_run_that_is_chosen(player, source):
    player.locator('[data-side="right"] [data-part="entry"]').select_option(label="dual with threshold:threshold=0.3")
    wait_until(player, RIGHT_IS.format("dual"))
    player.locator('#player [data-part="last"]').click()
    for side, entry in (("left", ("none", "confidence")), ("right", ("dual", "threshold:threshold=0.3"))):
        saved = next(s for s in source.traces if s.entry == entry and s.case[0] == "weave")
        tokens = saved.trace[-1].tokens[0, saved.trace.prompt_length :].tolist()
        assert response(player, side) == [saved.words[token].strip() for token in tokens]


def test_a_token_tells_about_its_row(player, source):
    player.locator('#player [data-part="forward"]').click()
    cell = player.locator("[data-side=left] .response .cell").first
    cell.click()
    words = player.locator("[data-side=left] .about").text_content()
    place = saved_run(source, "none").trace.prompt_length
    assert words.startswith(f"Position {place}: ")
    assert "refreshed in every layer" in words
    cell.click()


def test_a_click_on_the_map_goes_to_its_step(player):
    box = player.locator("[data-side=left] [data-part=map]").bounding_box()
    player.locator("[data-side=left] [data-part=map]").click(position={"x": 20, "y": box["height"] * 4.5 / 8})
    assert at(player).startswith("step 5 of ")


# --- what is no markup


def test_texts_are_texts(page):
    page.locator('#player [data-part="case"]').select_option(label="hostile, problem 0")
    wait_until(page, "document.querySelector('[data-part=problem]').textContent.includes('</script>')")
    page.locator('#player [data-part="last"]').click()
    assert ATTACK in page.locator('#player [data-part="problem"]').text_content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_only_the_scripts_of_the_report_may_run(browser, page_file):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.evaluate(
        "() => { const s = document.createElement('script'); s.text = 'window.late = 1'; document.body.append(s) }"
    )
    assert page.evaluate("window.late") is None
    page.close()


# --- how it looks

LOOKS = """
() => {
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || element.closest('script, style, option') || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [light, dark] = [luminance(ink), luminance(behind(element))].sort((a, b) => b - a);
    found.push({ text: text.slice(0, 40), size: parseFloat(style.fontSize), contrast: (light + 0.05) / (dark + 0.05) });
  }
  return found;
}
"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_it_can_be_read(open_page, page_file, width, scheme):
    with open_page(page_file, width, scheme) as page:
        wait_until(page, "document.querySelectorAll('[data-side=right] .cell').length > 0")
        page.locator('#player [data-part="forward"]').click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page itself scrolls sideways"
        looks = page.evaluate(LOOKS)
        assert len(looks) > 200
        assert [look for look in looks if look["size"] < 12] == []
        assert [look for look in looks if look["contrast"] < 4.5] == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


def test_the_colours_can_be_chosen_and_plots_follow(open_page, page_file):
    with open_page(page_file) as page:
        background = "getComputedStyle(document.querySelector('.plot .bg') ?? document.body).fill"
        seen = {page.evaluate(background)}
        button = page.locator("#theme")
        for words in ("light", "dark"):
            button.click()
            assert button.text_content() == f"Colours: {words}"
            seen.add(page.evaluate(background))
            body = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (body == "rgb(255, 255, 255)") == (words == "light")
        assert len(seen) == 2


def test_everything_that_can_be_used_has_a_name(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input')].filter(each =>
             !each.ariaLabel && !each.textContent.trim() && !each.labels?.length).length"""
    )
    assert nameless == 0
    ids = page.eval_on_selector_all("[id]", "all => all.map(each => each.id)")
    assert len(set(ids)) == len(ids)
    levels = [int(tag[1]) for tag in page.eval_on_selector_all("h1, h2, h3", "all => all.map(each => each.tagName)")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_page_holds_what_it_takes_to_run_again(page, source):
    assert f'model = "{source.results.header.model}"' in page.locator("#reproduce pre").text_content()
    facts = dict(zip(texts(page, "#reproduce th"), texts(page, "#reproduce td"), strict=True))
    assert facts["model hash"] == source.results.header.experiment["model_hash"]
    assert facts["torch"] == source.results.header.environment["torch"]
    assert json.loads(facts["seeds"]) == 0


def test_on_paper_it_is_light_and_has_no_controls(open_page, page_file):
    with open_page(page_file, scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator(".controls:visible, .transport:visible, #theme:visible").count() == 0
        assert page.locator("#accuracy tbody tr:visible").count() == 12
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        ink = page.evaluate("document.querySelector('#pareto .plot')._fullLayout.font.color")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert ink == "#1b222b"
        assert page.evaluate("document.documentElement.dataset.theme") is None
