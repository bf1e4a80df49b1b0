"use strict";
// Steps through denoising, two runs side by side. Step 0 is the canvas before the first forward pass.
(() => {
  const player = document.getElementById("player");
  if (player === null) return;
  const cases = freshkv.data("player-data");
  const find = (name) => player.querySelector(`[data-part="${name}"]`);
  const slider = find("slider");
  const MASK = "\u00b7";

  // One run: its cells, its texts and its maps.
  class Pane {
    constructor(element) {
      const part = (name) => element.querySelector(`[data-part="${name}"]`);
      this.element = element;
      this.menu = part("entry");
      this.name = part("name");
      this.state = part("state");
      this.about = part("about");
      this.prompt = part("prompt");
      this.response = part("response");
      this.layers = part("layers");
      this.layersBox = part("layers-box");
      this.map = part("map");
      this.here = part("here");
      this.chosen = null;
      this.map.addEventListener("click", (event) => {
        const box = this.map.getBoundingClientRect();
        go(Math.ceil(((event.clientY - box.top) / box.height) * this.run.steps.length));
      });
      for (const area of [this.prompt, this.response]) {
        area.addEventListener("click", (event) => this.choose(this.cells.indexOf(event.target.closest(".cell"))));
      }
    }

    // false: another run was chosen while this one was unpacked
    async load(entry) {
      this.wanted = entry;
      const run = await freshkv.unpack(entry.packed);
      if (this.wanted !== entry) return false;
      this.run = run;
      this.name.textContent = entry.name;
      this.words = [this.run.words];
      for (const step of this.run.steps) {
        const words = [...this.words.at(-1)];
        for (const [place, word] of step.set) words[place] = word;
        this.words.push(words);
      }
      this.cells = this.run.words.map(() => {
        const cell = document.createElement("span");
        cell.append(document.createElement("span"), document.createElement("span"));
        cell.lastChild.className = "sure";
        return cell;
      });
      this.prompt.replaceChildren(...this.cells.slice(0, this.run.prompt_length));
      this.response.replaceChildren(...this.cells.slice(this.run.prompt_length));
      this.layersBox.hidden = this.run.same_in_all_layers;
      this.chosen = null;
      this.drawMap();
      return true;
    }

    // the step shown when the player stands at `step`: a run that has ended keeps its last
    clamp(step) {
      return Math.min(step, this.run.steps.length);
    }

    show(step) {
      const at = this.clamp(step);
      const record = at === 0 ? null : this.run.steps[at - 1];
      const committed = new Set(record?.committed);
      const remasked = new Set(record?.remasked);
      const added = new Set(record?.added);
      this.cells.forEach((cell, place) => {
        const word = this.words[at][place];
        const share = record === null ? 0 : this.share(record, place);
        const classes = ["cell"];
        if (share === 1) classes.push("fresh");
        else if (share > 0) classes.push("some");
        if (word === null) classes.push("masked");
        if (committed.has(place)) classes.push("committed");
        if (remasked.has(place)) classes.push("remasked");
        if (added.has(place)) classes.push("added");
        if (place === this.chosen) classes.push("chosen");
        cell.className = classes.join(" ");
        cell.firstChild.textContent = word ?? MASK;
        cell.lastChild.style.width = `${record?.confidence[place] ?? 0}%`;
      });
      this.at = at;
      this.state.textContent = this.describe(step, record);
      this.about.textContent = this.describeChosen(record);
      this.drawLayers(record);
      this.here.style.top = `${(100 * this.at) / this.run.steps.length}%`;
    }

    // of the layers, how many refreshed this row
    share(record, place) {
      return record.rows.filter((layer) => layer[place] === "1").length / record.rows.length;
    }

    describe(step, record) {
      const run = this.run;
      const before = run.steps.slice(0, this.at).reduce((sum, each) => sum + each.rows_computed, 0);
      const total = run.words.length;
      if (record === null) return `Before the first pass. ${total} rows: ${run.prompt_length} of the prompt, ${total - run.prompt_length} masks.`;
      const words = record.committed.map((place) => `\u201c${this.words[this.at][place]}\u201d at ${place}`);
      const shown = words.length > 4 ? `${words.length} tokens` : words.join(", ");
      const rows = `${record.rows_computed} of ${total} rows computed (${Math.round((100 * record.rows_computed) / total)} %), ${before} so far.`;
      const extra = [
        record.shadow_rows > 0 ? ` Of them ${record.shadow_rows} shadow rows.` : "",
        record.probed > 0 ? ` Besides, values of ${record.probed} rows probed.` : "",
        record.remasked.length > 0 ? ` ${record.remasked.length} masked again.` : "",
      ].join("");
      const end = step >= run.steps.length ? ` Done in ${run.steps.length} passes; ${run.verdict}.` : "";
      return `${rows}${extra} Committed ${shown}.${end}`;
    }

    choose(place) {
      this.chosen = place < 0 || place === this.chosen ? null : place;
      this.show(position);
    }

    describeChosen(record) {
      if (this.chosen === null) return "Choose a token to read about its row.";
      const place = this.chosen;
      const word = this.words[this.at][place];
      const name = `Position ${place}: ${word === null ? "masked" : `\u201c${word}\u201d`}`;
      if (record === null) return `${name}.`;
      const fresh = record.rows.flatMap((layer, number) => (layer[place] === "1" ? [number + 1] : []));
      const rows =
        fresh.length === 0 ? "reused" : fresh.length === record.rows.length ? "refreshed in every layer" : `refreshed in layers ${fresh.join(", ")} of ${record.rows.length}`;
      const sure = record.confidence[place];
      return `${name}, row ${rows}${sure === null ? "" : `, confidence ${(sure / 100).toFixed(2)}`}.`;
    }

    // layers of this step: a line for each layer, a column for each row
    drawLayers(record) {
      if (this.run.same_in_all_layers) return;
      const count = this.run.layers;
      this.layers.style.height = `${Math.min(160, Math.max(30, 8 * count))}px`;
      this.paint(this.layers, count, (layer, place) => {
        if (record === null) return "--page";
        const rows = record.rows[record.rows.length === 1 ? 0 : layer];
        return rows[place] === "1" ? "--fresh-line" : "--shade";
      });
    }

    // the whole run: a line for each pass, a column for each row
    drawMap() {
      this.paint(this.map, this.run.steps.length, (number, place) => {
        const record = this.run.steps[number];
        if (record.committed.includes(place)) return "--commit";
        const share = this.share(record, place);
        return share === 1 ? "--fresh-line" : share > 0 ? "--fresh" : "--shade";
      });
    }

    paint(canvas, lines, roleAt) {
      const columns = this.run.words.length;
      canvas.width = columns * SCALE;
      canvas.height = lines * SCALE;
      const context = canvas.getContext("2d");
      const colours = {};
      for (let line = 0; line < lines; line++) {
        for (let place = 0; place < columns; place++) {
          const role = roleAt(line, place);
          context.fillStyle = colours[role] ??= freshkv.colour(role);
          context.fillRect(place * SCALE, line * SCALE, SCALE, SCALE);
        }
      }
    }
  }

  const SCALE = 4; // pixels of a cell of a map, before it is stretched
  const panes = [...player.querySelectorAll(".pane")].map((element) => new Pane(element));
  let position = 0;
  let timer = null;
  let ready = false;

  const last = () => Math.max(...panes.map((pane) => pane.run.steps.length));

  const go = (step) => {
    if (!ready) return;
    position = Math.max(0, Math.min(last(), step));
    slider.max = last();
    slider.value = position;
    slider.setAttribute("aria-valuetext", `step ${position} of ${last()}`);
    find("count").textContent = `step ${position} of ${last()}`;
    // not disabled: that would take the focus, and the keys with it
    for (const name of ["first", "back"]) find(name).setAttribute("aria-disabled", position === 0);
    for (const name of ["forward", "last"]) find(name).setAttribute("aria-disabled", position === last());
    for (const pane of panes) pane.show(position);
    if (position === last()) pause();
  };

  const pause = () => {
    clearInterval(timer);
    timer = null;
    find("play").textContent = "Play";
    find("play").setAttribute("aria-pressed", "false");
  };

  const play = () => {
    if (position === last()) go(0);
    find("play").textContent = "Pause";
    find("play").setAttribute("aria-pressed", "true");
    timer = setInterval(() => go(position + 1), 1000 / Number(find("speed").value));
  };

  const toggle = () => (timer === null ? play() : pause());

  const moves = {
    ArrowLeft: () => go(position - 1),
    ArrowRight: () => go(position + 1),
    Home: () => go(0),
    End: () => go(last()),
    " ": toggle,
  };

  const load = async (pane) => {
    ready = false;
    pause();
    const { entries } = cases[Number(find("case").value)];
    if (!(await pane.load(entries[Number(pane.menu.value)]))) return;
    ready = panes.every((each) => each.run !== undefined);
    go(position);
  };

  const loadCase = async () => {
    const chosen = cases[Number(find("case").value)];
    find("problem").textContent = chosen.problem;
    panes.forEach((pane, number) => {
      const before = pane.menu.selectedOptions[0]?.textContent;
      const names = chosen.entries.map((entry) => entry.name);
      freshkv.fill(pane.menu, names.map((name, place) => [place, name]));
      const kept = names.indexOf(before);
      pane.menu.value = kept >= 0 ? kept : Math.min(chosen.start[number], names.length - 1);
    });
    position = 0;
    await Promise.all(panes.map(load));
  };

  freshkv.fill(find("case"), cases.map((each, place) => [place, each.name]));
  find("case").addEventListener("change", loadCase);
  for (const pane of panes) pane.menu.addEventListener("change", () => load(pane));
  find("first").addEventListener("click", () => go(0));
  find("back").addEventListener("click", () => go(position - 1));
  find("forward").addEventListener("click", () => go(position + 1));
  find("last").addEventListener("click", () => go(last()));
  find("play").addEventListener("click", toggle);
  find("speed").addEventListener("change", () => {
    if (timer !== null) {
      pause();
      play();
    }
  });
  slider.addEventListener("input", () => go(Number(slider.value)));
  player.addEventListener("keydown", (event) => {
    // menus need their arrows, and buttons the space bar
    if (event.target.matches("select") || (event.key === " " && event.target.matches("button"))) return;
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in moves)) return;
    event.preventDefault();
    moves[event.key]();
  });
  freshkv.onTheme(() => {
    if (!ready) return;
    for (const pane of panes) pane.drawMap();
    go(position);
  });
  loadCase();
})();
