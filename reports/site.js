// Hides the lines of entries that were not tuned in one of the ways that are chosen.
for (const form of document.querySelectorAll("form.filter")) {
  form.hidden = false;
  const boxes = [...form.querySelectorAll("input")];
  const status = form.querySelector("[role=status]");
  const choose = () => {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const rows = [...document.querySelectorAll("tr[data-tuning]")];
    for (const row of rows) row.hidden = !chosen.has(row.dataset.tuning);
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = `${shown} of ${rows.length} lines`;
  };
  form.addEventListener("change", choose);
  choose();
}
