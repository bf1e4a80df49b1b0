"use strict";
// Tables sort by a click on a heading, and show the lines that the menus above them choose.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];

  const value = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.sort ?? cell.textContent;
    return cell.classList.contains("number") ? (key === "" ? null : Number(key)) : key;
  };

  // lines without a value stay at the end in either direction
  const compare = (first, second, direction) => {
    if (first === null || second === null) return (first === null) - (second === null);
    return direction * (typeof first === "number" ? first - second : first.localeCompare(second));
  };

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      body.append(...[...original].sort((a, b) => compare(value(a, column), value(b, column), direction)));
    });
  });
}

for (const controls of document.querySelectorAll("[data-filters]")) {
  const menus = [...controls.querySelectorAll("select")];
  const filter = () => {
    for (const row of document.querySelectorAll(`#${controls.dataset.filters} tbody tr`)) {
      row.hidden = menus.some((menu) => menu.value !== "" && row.dataset[menu.name] !== menu.value);
    }
  };
  for (const menu of menus) menu.addEventListener("change", filter);
}
