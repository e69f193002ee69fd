"use strict";

/* Models: the list beside the pictures, and the table of all facts, metrics and params. */

const Models = (() => {
  const { element } = Panel;
  const list = document.getElementById("list");
  const filter = document.getElementById("filter");
  const sort = document.getElementById("sort");
  const direction = document.getElementById("direction");
  const failed = document.getElementById("failed");
  const none = document.getElementById("none");
  const table = document.getElementById("table");

  const extras = document.getElementById("extras");

  const GROUPS = { mean: "Means over the frames", metric: "Metrics", param: "Parameters", fact: "Model and render" };
  const EXTRAS = { "contact_sheet.png": "Contact sheet", "side_by_side.mp4": "Video" };

  function row(id, digit) {
    const item = element("li");
    item.dataset.id = id;
    const name = element("button", "name");
    name.type = "button";
    name.dataset.id = id;
    name.append(element("bdi", "", Catalog.name(id)));
    const model = Catalog.models.get(id);
    if (model && !State.values.blind) name.title = [model.name, model.id, ...model.notes].join("\n");
    item.append(element("span", "digit", digit), name, element("span", "figure"), Panel.chips(id));
    return item;
  }

  /* Replace the children of an element. If the focused button has a counterpart among them, it gets the focus. */
  function refill(root, ...children) {
    const like = (button) => JSON.stringify(button.dataset);
    const held = root.contains(document.activeElement) ? like(document.activeElement) : null;
    root.replaceChildren(...children);
    if (held) [...root.querySelectorAll("button")].find((button) => like(button) === held)?.focus();
  }

  function fill() {
    const listed = Catalog.listed();
    const numbered = listed.map((id, index) => row(id, index < 9 ? index + 1 : ""));
    refill(list, ...Catalog.fixed.map((id) => row(id, "")), ...numbered);
    none.hidden = listed.length > 0;
    none.textContent = Catalog.shown.length ? "No model passes the filter." : "No model was rendered.";
    mark();
  }

  /* Mark A, B and pinned models, and show the value that the list is sorted by. */
  function mark() {
    const { a, b, sort: key, blind } = State.values;
    for (const item of list.children) {
      const { id } = item.dataset;
      item.classList.toggle("is-a", id === a);
      item.classList.toggle("is-b", id === b);
      const model = Catalog.models.get(id);
      item.querySelector(".figure").textContent =
        model && key && !blind ? Catalog.brief(Catalog.value(model, key)) : "";
    }
    Panel.markChips(list);
    Panel.markChips(table);
  }

  function fillSort() {
    sort.append(new Option("In MLflow's order", ""));
    for (const [group, label] of Object.entries(GROUPS)) {
      const keys = Catalog.keys.filter((key) => key.startsWith(`${group}:`));
      if (!keys.length) continue;
      const options = document.createElement("optgroup");
      options.label = label;
      options.append(...keys.map((key) => new Option(Catalog.title(key), key)));
      sort.append(options);
    }
  }

  function fillExtras(names) {
    extras.append(
      ...names.map((name) => {
        const link = element("a", "", EXTRAS[name]);
        return Object.assign(link, { href: name, target: "_blank" });
      }),
    );
  }

  function fillFailed() {
    failed.hidden = !Catalog.failed.length;
    failed.firstElementChild.textContent = `${Catalog.failed.length} failed`;
    failed.lastElementChild.append(
      ...Catalog.failed.map((model) => {
        const item = element("li");
        item.append(element("bdi", "name", model.name), element("span", "reason", reason(model)));
        return item;
      }),
    );
  }

  function reason({ status, error }) {
    return `${status.replaceAll("_", " ")}: ${error ?? "the reason is unknown"}`;
  }

  function controls() {
    const { filter: text, sort: key, descending, blind } = State.values;
    if (filter.value !== text) filter.value = text;
    sort.value = Catalog.keys.includes(key) ? key : "";
    direction.textContent = descending ? "↓" : "↑";
    for (const control of [filter, sort, direction]) control.disabled = Boolean(blind);
    extras.hidden = Boolean(blind) || !extras.children.length; // they show names
    failed.hidden = Boolean(blind) || !Catalog.failed.length;
  }

  /* Build the table: a row per model, failed ones last, and a column per fact, mean, metric and param. */
  function tabulate() {
    if (State.values.view !== "table") return;
    const models = [...Catalog.sorted(Catalog.filtered(Catalog.shown)), ...Catalog.filtered(Catalog.failed)];
    const columns = Catalog.keys.filter((key) => !State.values.differing || differs(key));
    const grid = element("table");
    grid.append(head(columns), body(models, columns));
    refill(table, grid);
    if (!models.length) table.append(element("p", "message", "No model passes the filter."));
    Panel.markChips(table);
  }

  function differs(key) {
    const [first, ...others] = Catalog.shown.map((model) => Catalog.value(model, key));
    return first === undefined || others.length === 0 || others.some((other) => other !== first);
  }

  function head(columns) {
    const groups = element("tr");
    groups.append(element("th", "model"));
    for (const group of ["fact", "mean", "metric", "param"]) {
      const count = columns.filter((key) => key.startsWith(`${group}:`)).length;
      if (!count) continue;
      const cell = element("th", "group", GROUPS[group]);
      cell.colSpan = count;
      cell.scope = "colgroup";
      groups.append(cell);
    }
    const titles = element("tr");
    titles.append(sorter("", "Model"), ...columns.map((key) => sorter(key, Catalog.title(key))));
    const made = element("thead");
    made.append(groups, titles);
    return made;
  }

  function sorter(key, title) {
    const { sort: sorted, descending } = State.values;
    const cell = element("th", key ? "" : "model");
    cell.scope = "col";
    cell.setAttribute("aria-sort", !key || sorted !== key ? "none" : descending ? "descending" : "ascending");
    const button = element("button", "", title);
    button.type = "button";
    button.dataset.sort = key;
    cell.append(button);
    return cell;
  }

  function body(models, columns) {
    const made = element("tbody");
    made.append(
      ...models.map((model) => {
        const line = element("tr");
        const failure = !Catalog.layers.has(model.id);
        line.append(title(model), ...(failure ? [reasonCell(model, columns)] : columns.map((key) => cell(model, key))));
        return line;
      }),
    );
    return made;
  }

  function title(model) {
    const made = element("th", "model");
    made.scope = "row";
    const name = element("bdi", "name", Catalog.name(model.id));
    name.title = `${model.name}\n${model.id}`;
    made.append(name);
    if (model.link) {
      const link = element("a", "run", "run ↗");
      link.href = model.link;
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      link.setAttribute("aria-label", `${model.name} in MLflow`);
      made.append(link);
    } else {
      made.append(element("small", "run", model.run_id.slice(0, 8)));
    }
    if (Catalog.layers.has(model.id)) made.append(Panel.chips(model.id));
    made.append(...model.notes.map((note) => element("small", "note", note)));
    return made;
  }

  function reasonCell(model, columns) {
    const made = element("td", "reason", reason(model));
    made.colSpan = Math.max(1, columns.length);
    return made;
  }

  function cell(model, key) {
    const value = Catalog.value(model, key);
    const made = element("td", Catalog.numeric(value) === null ? "" : "number", Catalog.brief(value));
    if (String(value).length > 24 || made.textContent !== String(value)) made.title = String(value).slice(0, 2000);
    return made;
  }

  function pressed(event) {
    const chip = event.target.closest(".chip");
    const sorted = event.target.closest("[data-sort]");
    const name = event.target.closest("button.name");
    if (chip) Stage.choose(chip.dataset.act, chip.dataset.id);
    else if (sorted) resort(sorted.dataset.sort);
    else if (name) State.set({ [State.values.slot]: name.dataset.id });
  }

  function resort(key) {
    const same = State.values.sort === key;
    State.set({ sort: key, descending: same && !State.values.descending });
  }

  function start() {
    fillSort();
    fillExtras(BESIDE);
    fillFailed();
    State.on("filter sort descending pins blind", () => {
      fill();
      controls();
    });
    State.on("a b", mark);
    State.on("view filter sort descending differing blind", tabulate);
    State.on("pins", mark);
    filter.addEventListener("input", () => State.set({ filter: filter.value }));
    sort.addEventListener("change", () => State.set({ sort: sort.value }));
    direction.addEventListener("click", () => State.set({ descending: !State.values.descending }));
    list.addEventListener("click", pressed);
    table.addEventListener("click", pressed);
  }

  return { start };
})();
