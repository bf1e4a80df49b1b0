"use strict";
// Figures come ready from Python; here they get the colours of the scheme, and follow their menus.
freshkv.draw = (element, figure) => {
  const layout = freshkv.themed({
    paper_bgcolor: "--page",
    plot_bgcolor: "--page",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "--ink" },
    ...figure.layout,
  });
  for (const [name, axis] of Object.entries(layout)) {
    if (/^[xy]axis\d*$/.test(name)) {
      const line = freshkv.colour("--line");
      layout[name] = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, ...axis };
    }
  }
  layout.hoverlabel = freshkv.themed({ bgcolor: "--raised", bordercolor: "--line", font: { color: "--ink" } });
  const settings = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    scrollZoom: false,
  };
  element.setAttribute("aria-label", figure.words);
  return Plotly.react(element, freshkv.themed(figure.data), layout, settings);
};

for (const section of document.querySelectorAll("[data-figures]")) {
  const all = freshkv.data(section.dataset.figures);
  const menus = [...section.querySelectorAll(".controls select")];
  const redraw = () => {
    const figures = all[JSON.stringify(menus.map((menu) => menu.value))];
    section.querySelectorAll(".plot").forEach((element, place) => freshkv.draw(element, figures[place]));
  };
  for (const menu of menus) menu.addEventListener("change", redraw);
  freshkv.onTheme(redraw);
  redraw();
}
