// Tables that sort by a click on a heading and filter by a word.

function sortValue(cell, numeric) {
  if (cell.classList.contains("none")) return null;
  const text = (cell.dataset.v ?? cell.textContent).trim();
  if (!numeric) return text || null;
  const number = parseFloat(text.replace(/[,%<>±]/g, ""));
  return Number.isNaN(number) ? null : number;
}

const inOrder = new Intl.Collator("en", { numeric: true });

function sortTable(table, column, ascending) {
  const body = table.tBodies[0], numeric = !table.tHead.rows[0].cells[column].classList.contains("t");
  const rows = [...body.rows].map((row, i) => [sortValue(row.cells[column], numeric), i, row]);
  const sign = ascending ? 1 : -1;
  rows.sort(([a, i], [b, j]) => {
    if (a === null || b === null) return (a === null) - (b === null) || i - j;
    return sign * (numeric ? a - b : inOrder.compare(a, b)) || i - j;
  });
  body.append(...rows.map(row => row[2]));
}

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach(other => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortTable(table, column, ascending);
    });
  });
}

function makeFilter(grid, table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 2) return;
  const words = row => [...row.cells].filter(c => c.matches("th, .t")).map(c => c.textContent.trim());
  const texts = rows.map(row => words(row).join(" ").toLowerCase());
  const bar = document.createElement("div");
  bar.className = "controls filter";
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("span");
  input.type = "search";
  input.placeholder = "name, kind or finding";
  input.autocomplete = "off";
  count.className = "muted small";
  count.setAttribute("role", "status");
  label.append("Filter ", input);
  bar.append(label, count);
  const apply = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !wanted.every(word => texts[i].includes(word));
      shown += !row.hidden;
    });
    count.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  };
  input.addEventListener("input", apply);
  apply();
  grid.prepend(bar);
}
