// Sorts, filters and opens what the page already holds. Text of the run is compared, never parsed.
"use strict";
(() => {
  const table = document.querySelector("table.entries");
  const form = document.getElementById("filters");
  const found = document.getElementById("found");
  const rows = Array.from(table.tBodies);
  const heads = Array.from(table.tHead.rows[0].cells);
  const toggles = new Map(rows.map((row) => [row, row.querySelector("details")]));
  const texts = new Map();
  const words = new Intl.Collator("en", { numeric: true });
  const choices = ["outcome", "device", "contract"];
  let sorted = "";

  document.documentElement.classList.add("scripted");
  form.hidden = false;

  function textOf(row) {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  }

  function isShown(row, wanted, values) {
    return (
      choices.every((name) => values[name] === "" || row.dataset[name] === values[name]) &&
      wanted.every((word) => textOf(row).includes(word))
    );
  }

  function filter() {
    const wanted = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const values = Object.fromEntries(choices.map((name) => [name, form.elements[name].value]));
    let shown = 0;
    for (const row of rows) {
      row.hidden = !isShown(row, wanted, values);
      shown += row.hidden ? 0 : 1;
    }
    tell(`${shown} of ${rows.length} entries shown`);
  }

  function tell(message) {
    found.textContent = sorted ? `${message}, ${sorted}` : message;
  }

  // Numbers come before words, and what has no value comes last, in both directions.
  function keyOf(row, column) {
    const cell = row.rows[0].cells[column];
    const value = cell.dataset.v;
    const text = cell.textContent;
    if (value !== undefined) return { rank: 0, number: Number(value), text };
    return { rank: text === "–" ? 2 : 1, number: 0, text };
  }

  function sort(column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const keyed = rows.map((row, place) => ({ row, place, key: keyOf(row, column) }));
    keyed.sort(
      (a, b) =>
        a.key.rank - b.key.rank ||
        (a.key.rank === 0
          ? sign * (a.key.number < b.key.number ? -1 : a.key.number > b.key.number ? 1 : 0)
          : sign * words.compare(a.key.text, b.key.text)) ||
        a.place - b.place,
    );
    arrange(keyed.map((item) => item.row));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    });
    sorted = `by ${heads[column].textContent}, ${direction}`;
    filter();
  }

  function arrange(order) {
    const all = document.createDocumentFragment();
    all.append(...order);
    table.append(all);
  }

  function planOrder() {
    arrange(rows);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    sorted = "";
  }

  function show(changes) {
    form.reset();
    for (const [name, value] of Object.entries(changes)) form.elements[name].value = value;
    filter();
  }

  function decoded(name) {
    try {
      return decodeURIComponent(name);
    } catch {
      return name;
    }
  }

  // What a fragment names may be filtered away, or closed.
  function follow() {
    const name = location.hash.slice(1);
    const target = name && (document.getElementById(name) ?? document.getElementById(decoded(name)));
    if (!target) return;
    const row = target.closest("table.entries > tbody");
    if (row) {
      if (row.hidden) show({});
      toggles.get(row).open = true;
    }
    for (let at = target; at; at = at.parentElement) if (at.localName === "details") at.open = true;
    target.scrollIntoView();
    if (row) toggles.get(row).firstElementChild.focus({ preventScroll: true });
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "ascending";
      sort(column, up ? "descending" : "ascending");
    });
    head.replaceChildren(button);
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    planOrder();
    // The fields are emptied only after this event.
    setTimeout(filter);
  });
  form.elements.open.addEventListener("click", () => {
    for (const row of rows) if (!row.hidden) toggles.get(row).open = true;
  });
  form.elements.close.addEventListener("click", () => {
    for (const row of rows) toggles.get(row).open = false;
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-find], a[data-outcome]");
    if (link) {
      const { find, outcome } = link.dataset;
      show(find === undefined ? { outcome } : { search: find });
      return;
    }
    const line = event.target.closest("table.entries > tbody > tr:first-child");
    if (line && !event.target.closest("a, summary") && getSelection().isCollapsed) {
      const toggle = toggles.get(line.parentElement);
      toggle.open = !toggle.open;
    }
  });
  addEventListener("hashchange", follow);
  // Not before: on its own way to the fragment, a browser takes the focus away again.
  addEventListener("load", follow);
})();
