// Makes tables sortable and filterable. Without it the page is complete, only still.
"use strict";

const SMALLEST_FILTERED = 6;
const FIRST_SHOWN = 6; // as many as style/tables.css shows of a table that is short
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
const news = document.getElementById("news");

function firstLine(cell) {
  return (cell.querySelector("span") ?? cell).textContent.trim();
}

function compare(a, b, isNumber) {
  if (isNumber) return parseFloat(a.replaceAll(",", "")) - parseFloat(b.replaceAll(",", ""));
  return a.localeCompare(b, "en", { numeric: true });
}

function sort(table, original, column, order, isNumber) {
  const rows = [...original];
  if (order !== "none") {
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((one, other) => {
      const [a, b] = [one, other].map((row) => firstLine(row.cells[column]));
      // Empty cells stay last in both directions.
      if (!a || !b) return Number(!a) - Number(!b);
      return sign * compare(a, b, isNumber);
    });
  }
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  const original = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const title = head.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const order = NEXT[head.getAttribute("aria-sort") ?? "none"];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (order !== "none") head.setAttribute("aria-sort", order);
      sort(table, original, column, order, head.classList.contains("number"));
      const how = order === "none" ? "in the original order" : `sorted by ${title}, ${order}`;
      news.textContent = `${table.caption.textContent}: ${how}`;
    });
  });
}

function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < SMALLEST_FILTERED) return;
  const box = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("span");
  box.className = "filter";
  input.type = "search";
  label.append("Filter rows", input);
  input.setAttribute("aria-label", `Filter rows of ${table.caption.textContent}`);
  box.append(label, count);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    table.classList.toggle("filtered", words.length > 0);
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
    news.textContent = `${table.caption.textContent}: ${shown} of ${rows.length} rows`;
  });
  table.closest(".scroll").before(box);
}

function makeShort(table) {
  const count = table.tBodies[0].rows.length;
  if (count <= FIRST_SHOWN) return;
  const button = document.createElement("button");
  const show = (all) => {
    table.classList.toggle("short", !all);
    button.setAttribute("aria-expanded", String(all));
    button.textContent = all ? `first ${FIRST_SHOWN} rows` : `all ${count} rows`;
    button.setAttribute("aria-label", `${button.textContent} of ${table.caption.textContent}`);
  };
  button.type = "button";
  button.className = "more";
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") === "false"));
  show(false);
  table.closest(".scroll").after(button);
}

for (const table of document.querySelectorAll("table")) {
  makeSortable(table);
  makeFilterable(table);
  makeShort(table);
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
