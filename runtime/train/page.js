for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numbers = head.classList.contains("right");
    const key = (row) => numbers
      ? parseFloat(row.cells[column].textContent) : row.cells[column].textContent;
    const order = (a, b) => numbers ? key(a) - key(b) : key(a).localeCompare(key(b));
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => down ? order(b, a) : order(a, b));
    body.append(...rows);
  }));
}
