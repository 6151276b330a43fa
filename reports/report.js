// Sorts tables by their columns: in each body the rows alone, so that groups stay together.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const bodies = [...table.tBodies].filter((body) => !body.classList.contains("sums"));
      const value = (row) => row.cells[column].dataset.v;
      const numbers = bodies.some((body) => [...body.rows].some((row) => value(row) !== undefined));
      const was = head.getAttribute("aria-sort");
      const up = was ? was === "descending" : !numbers;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        if (!numbers) {
          const [x, y] = [a, b].map((row) => row.cells[column].textContent.trim());
          return x.localeCompare(y, "en", { numeric: true }) * (up ? 1 : -1);
        }
        const [x, y] = [value(a), value(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return (x - y) * (up ? 1 : -1);
      };
      for (const body of bodies) {
        const fixed = [...body.rows].filter((row) => row.classList.contains("group"));
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        body.append(...fixed, ...rows.sort(compare));
      }
    });
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
