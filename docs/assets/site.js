document$.subscribe(() => {
  document.querySelector(".md-search").setAttribute("aria-label", "Search");

  // A field that leaves the rows of the tables below it that have all its words.
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

  // A link to a folded card unfolds it.
  const unfold = () => {
    const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = card?.closest("details:not([open])");
    if (folded) {
      folded.open = true;
      card.scrollIntoView();
    }
  };
  unfold();
  window.onhashchange = unfold;

  // Wide tables scroll; the theme wraps them after this, and leaves the keyboard out.
  setTimeout(() => {
    for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) wrap.tabIndex = 0;
  });
});
