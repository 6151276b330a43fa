// A field that leaves the rows of the tables below it that have all its words.
document$.subscribe(() => {
  for (const part of document.querySelectorAll(".filtered")) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Filter data sets";
    field.setAttribute("aria-label", field.placeholder);
    field.className = "filter";
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of part.querySelectorAll("tbody tr")) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
    part.prepend(field);
  }
});
