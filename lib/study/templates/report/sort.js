// A click on a column's header sorts its table, another one the other way round. Without scripts
// tables stay as they were written.
for (const table of document.querySelectorAll("main table")) {
  const body = table.tBodies[0], head = table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
  if (!head || !body || body.rows.length < 3 || body.querySelector("[rowspan]")) continue;
  if (table.caption) table.caption.firstElementChild.append(" A click on a header sorts.");
  [...head.cells].forEach((cell, place) => {
    if (!cell.textContent.trim()) return;
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => sort(body, head, cell, place));
  });
}

function sort(body, head, cell, place) {
  const sign = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.cells) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const rows = [...body.rows].map(row => [key(row.cells[place]), row]);
  rows.sort(([a], [b]) => a[0] - b[0] || sign * (a[0] === 1 ? a[1].localeCompare(b[1]) : a[1] - b[1]));
  body.append(...rows.map(([, row]) => row));
}

// Numbers by their first one, then words, and what is missing always last.
function key(cell) {
  const text = cell.textContent.trim().replace("\u2212", "-");
  const number = parseFloat(text.replace(/^<\s*/, "").replaceAll(",", ""));
  if (!Number.isNaN(number)) return [0, number];
  return /[\p{L}\p{N}]/u.test(text) ? [1, text] : [2, 0];
}
