"use strict";
// Heat maps of one run's drift: step x position (mean over layers) and step x layer (mean over positions).
(() => {
  const section = document.getElementById("drift-maps");
  if (section === null) return;
  const { runs, kinds, start } = freshkv.data("drift-data");
  const [runMenu, kindMenu, scaleMenu] = section.querySelectorAll("select");
  const [byPosition, byLayer] = section.querySelectorAll(".plot");
  const words = section.querySelector(".about");

  // the top of the colour scale: shared by all runs, or this map's own
  const top = (values, kind) => {
    if (scaleMenu.value === "shared") return kind.most;
    return values.reduce((most, row) => row.reduce((high, value) => Math.max(high, value ?? 0), most), 0) || kind.most;
  };

  const heatmap = (values, kind, horizontal, from) => ({
    words: `Heat map of ${kind.words} by ${horizontal} and step`,
    data: [
      {
        type: "heatmap",
        z: values,
        x: values[0].map((_, place) => place + from),
        y: values.map((_, step) => step + 1),
        zmin: 0,
        zmax: top(values, kind),
        colorscale: "Cividis",
        hoverongaps: false,
        hovertemplate: `${horizontal} %{x}<br>step %{y}<br>${kind.short} %{z:.3g}<extra></extra>`,
        colorbar: { title: { text: kind.short, side: "right" }, thickness: 12, outlinewidth: 0 },
      },
    ],
    layout: {
      margin: { l: 55, r: 10, t: 10, b: 50 },
      xaxis: { title: { text: horizontal }, showgrid: false, dtick: horizontal === "layer" ? 1 : undefined },
      yaxis: { title: { text: "step" }, autorange: "reversed", showgrid: false },
    },
  });

  const withPrompt = (figure, length) => {
    // the line between prompt and response
    figure.layout.shapes = [
      { type: "line", x0: length - 0.5, x1: length - 0.5, yref: "paper", y0: 0, y1: 1, line: { color: "--commit", width: 2 } },
    ];
    return figure;
  };

  const redraw = async () => {
    const run = runs[Number(runMenu.value)];
    const kind = kinds[kindMenu.value];
    const unpacked = await freshkv.unpack(run.packed);
    const maps = unpacked.maps[kindMenu.value];
    words.textContent = run.words;
    freshkv.draw(byPosition, withPrompt(heatmap(maps.positions, kind, "position", 0), unpacked.prompt_length));
    byLayer.closest("figure").hidden = maps.layers === null;
    if (maps.layers !== null) freshkv.draw(byLayer, heatmap(maps.layers, kind, "layer", 1));
  };

  freshkv.fill(runMenu, runs.map((run, place) => [place, run.name]));
  freshkv.fill(kindMenu, Object.entries(kinds).map(([key, kind]) => [key, kind.words]));
  runMenu.value = start;
  for (const menu of [runMenu, kindMenu, scaleMenu]) menu.addEventListener("change", redraw);
  freshkv.onTheme(redraw);
  redraw();
})();
