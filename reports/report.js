// Sorts tables by their columns: in each body the rows alone, so that groups stay together.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const text = (row) => row.cells[column].textContent.trim();
    const number = (row) => row.cells[column].dataset.v;
    button.addEventListener("click", () => {
      const bodies = [...table.tBodies].filter((body) => !body.classList.contains("sums"));
      const parts = bodies.map((body) => [...body.rows].filter((row) => row.className !== "group"));
      const numbers = parts.some((rows) => rows.some((row) => number(row) !== undefined));
      const was = head.getAttribute("aria-sort");
      const up = was ? was === "descending" : !numbers;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        if (!numbers) return text(a).localeCompare(text(b), "en", { numeric: true }) * (up ? 1 : -1);
        const [x, y] = [number(a), number(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return (x - y) * (up ? 1 : -1);
      };
      bodies.forEach((body, k) => body.append(...parts[k].sort(compare)));
    });
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
