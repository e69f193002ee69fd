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

  const GROUPS = {
    place: "Ranking",
    mean: "Measured by Dailies",
    metric: "Metrics logged in MLflow",
    param: "Parameters logged in MLflow",
    fact: "Model and render",
  };
  const MARKS = { best: "best", tie: "tie", "knocked out": "knocked out" };
  const KEYLESS = matchMedia("(pointer: coarse)").matches;
  const IDEAL = "ideal";

  /* A row of the list; the digit is the key that chooses it, and ``order`` is what to say about the ranking. */
  function row(id, digit, order) {
    const item = element("li");
    item.dataset.id = id;
    const { name: short, params } = Catalog.label(id);
    const name = element("button", "name");
    name.type = "button";
    name.dataset.id = id;
    const model = Catalog.models.get(id);
    const words = model && !State.values.blind ? marks(model, order) : [];
    if (model && !State.values.blind) name.title = [model.name, model.id, ...model.notes].join("\n");
    name.append(element("bdi", params ? "" : "alone", short));
    if (params || words.length) {
      const more = element("small", "params");
      more.append(...words, element("span", "", params));
      name.append(more);
    }
    const key = element("span", "digit", digit);
    if (digit) Tips.explain(key, `The key ${digit} shows this model as the active one of A and B.`);
    item.append(key, name, element("span", "figure"), Panel.chips(id));
    return item;
  }

  /* What the ranking says of a model, as words beside its name. */
  function marks({ place }, { isRanking }) {
    if (!place) return [];
    const words = [isRanking ? "" : `rank ${place.rank}`, MARKS[place.verdict] ?? ""].filter(Boolean);
    const made = words.length ? [element("span", "mark", `${words.join(", ")}${aboutMetric()}`)] : [];
    return place.below_source ? [...made, below(aboutMetric())] : made;
  }

  function below(about = "") {
    return element("span", "mark below", `below the source${about}`);
  }

  /* The metric that ranks, in words that follow a mark, if the models are sorted by something else. */
  function aboutMetric() {
    return Catalog.metricOf(State.values.sort) === Catalog.ranked.name ? "" : ` by ${Catalog.ranked.name}`;
  }

  /* Whether row numbers equal ranks, so that no row has to state its rank. Always false on touch screens: rows have no
     numbers there. */
  function isRanking(ids) {
    const places = ids.map((id) => Catalog.models.get(id).place).filter(Boolean);
    return !KEYLESS && aboutMetric() === "" && places.every(({ rank }, index) => rank === index + 1);
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
    const order = { isRanking: !Catalog.ranked || isRanking(listed) };
    const numbered = listed.map((id, index) => row(id, index < 9 ? index + 1 : "", order));
    refill(list, ...Catalog.fixed.map((id) => row(id, "", order)), ...numbered);
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
      item.querySelector(".figure").textContent = blind ? "" : figure(id, key);
    }
    Panel.markChips(list);
    Panel.markChips(table);
  }

  /* The value of the list's order: that of the metric that ranks, unless another column sorts it. */
  function figure(id, key) {
    const column = key && key !== Catalog.AS_LOGGED ? key : Catalog.ranking;
    const model = Catalog.models.get(id);
    if (!column || (!model && !column.startsWith("mean:"))) return "";
    const value = model ? Catalog.value(model, column) : fixedValue(id, column);
    return value === null ? "" : Catalog.brief(value);
  }

  /* The mean of the source; for the reference, a word, because some values of a perfect frame are limits by convention,
     such as a PSNR of 100 dB. */
  function fixedValue(id, key) {
    if (!key.startsWith("mean:")) return null;
    if (id === Catalog.SOURCE) return DATA.source[Catalog.plain(key)] ?? null;
    return Catalog.metrics.get(Catalog.plain(key))?.ideal ? IDEAL : null;
  }

  function fillSort() {
    if (DATA.ranking) sort.append(new Option("By rank", ""));
    sort.append(new Option("In MLflow's order", DATA.ranking ? Catalog.AS_LOGGED : ""));
    for (const [group, label] of Object.entries(GROUPS)) {
      const keys = Catalog.columns.filter((key) => key.startsWith(`${group}:`) && key !== "place:rank");
      if (!keys.length) continue;
      const options = document.createElement("optgroup");
      options.label = label;
      options.append(...keys.map((key) => new Option(Catalog.title(key), key)));
      sort.append(options);
    }
  }

  function fillFailed() {
    failed.hidden = !Catalog.failed.length;
    failed.firstElementChild.textContent = `${Catalog.failed.length} failed`;
    failed.lastElementChild.append(
      ...Catalog.failed.map((model) => {
        const item = element("li");
        const { name, params } = model.label;
        const shown = element("span", "name");
        shown.append(element("bdi", "", name), element("small", "params", params));
        shown.title = `${model.name}\n${model.id}`;
        item.append(shown, element("span", "reason", reason(model)));
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
    sort.value = [...sort.options].some((option) => option.value === key) ? key : "";
    direction.textContent = descending ? "↓" : "↑";
    for (const control of [filter, sort, direction]) control.disabled = Boolean(blind);
    failed.hidden = Boolean(blind) || !Catalog.failed.length;
  }

  /* Build the table: source and reference, then a row per model, failed ones last; a column per value. */
  function tabulate() {
    if (State.values.view !== "table") return;
    const models = [...Catalog.sorted(Catalog.filtered(Catalog.shown)), ...Catalog.filtered(Catalog.failed)];
    const columns = Catalog.columns.filter((key) => !State.values.differing || differs(key));
    const grid = element("table");
    grid.append(head(columns), body(models, columns));
    refill(table, grid);
    if (!models.length) table.append(element("p", "message", "No model passes the filter."));
    Panel.markChips(table);
  }

  /* Whether models differ in a column as it is printed. The ranking is shown in any case. */
  function differs(key) {
    if (Catalog.group(key) === "place") return true;
    const [first, ...others] = Catalog.shown.map((model) => Catalog.brief(Catalog.value(model, key)));
    return first === undefined || others.length === 0 || others.some((other) => other !== first);
  }

  function head(columns) {
    const groups = element("tr");
    groups.append(element("th", "model"));
    for (const [group, title] of Object.entries(GROUPS)) {
      const count = columns.filter((key) => Catalog.group(key) === group).length;
      if (!count) continue;
      const cell = element("th", "group", group === "place" ? `${title} by ${rankedBy()}` : title);
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

  function rankedBy() {
    const { name, unit } = Catalog.metrics.get(DATA.ranking.metric);
    return unit ? `${name}, ${unit}` : name;
  }

  function sorter(key, title) {
    const { sort: sorted, descending } = State.values;
    const cell = element("th", key ? "" : "model");
    cell.scope = "col";
    const isSorted = key ? sorted === key || (key === "place:rank" && !sorted && DATA.ranking) : false;
    cell.setAttribute("aria-sort", !isSorted ? "none" : descending ? "descending" : "ascending");
    const button = element("button", "", title);
    button.type = "button";
    button.dataset.sort = key;
    const metric = key.startsWith("mean:") ? Catalog.metrics.get(Catalog.plain(key)) : undefined;
    if (metric?.unit) button.append(" ", element("small", "unit", metric.unit));
    if (key && !/^place:(rank|verdict)/.test(key)) button.append(...better(key));
    if (key) Tips.explain(button, Catalog.help(key));
    cell.append(button);
    return cell;
  }

  /* The direction of better values, as an arrow and in words. */
  function better(key) {
    const direction = Catalog.direction(key);
    if (!direction) return [];
    const arrow = element("span", "better", direction > 0 ? "↑" : "↓");
    arrow.setAttribute("aria-hidden", "true");
    return [" ", arrow, " ", element("span", "spoken", direction > 0 ? "higher is better" : "lower is better")];
  }

  function body(models, columns) {
    const made = element("tbody");
    const best = new Map(columns.map((key) => [key, Catalog.best(key)]));
    if (DATA.metrics.length) made.append(...Catalog.fixed.map((id) => fixedRow(id, columns)));
    made.append(
      ...models.map((model) => {
        const line = element("tr");
        const failure = !Catalog.layers.has(model.id);
        const cells = failure ? [reasonCell(model, columns)] : columns.map((key) => cell(model, key, best.get(key)));
        line.append(title(model), ...cells);
        return line;
      }),
    );
    return made;
  }

  /* The row of the source or the reference: what was measured of it. */
  function fixedRow(id, columns) {
    const line = element("tr", "fixed");
    const made = element("th", "model");
    made.scope = "row";
    made.append(element("span", "name", Catalog.name(id)), " ");
    made.append(element("small", "run", id === Catalog.SOURCE ? "without a model" : "the aim"), Panel.chips(id));
    const cells = columns.map((key) => {
      const value = fixedValue(id, key);
      return element("td", value === null ? "" : "number", value === null ? "" : Catalog.brief(value));
    });
    line.append(made, ...cells);
    return line;
  }

  function title(model) {
    const made = element("th", "model");
    made.scope = "row";
    const { name: short, params } = Catalog.label(model.id);
    const name = element("span", "name");
    name.append(element("bdi", params ? "" : "alone", short));
    if (params) name.append(element("small", "params", params));
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

  function cell(model, key, best) {
    if (key.startsWith("place:to_")) return differenceCell(model, key);
    const value = Catalog.value(model, key);
    const made = element("td", Catalog.numeric(value) === null ? "" : "number", Catalog.brief(value));
    if (best !== null && Catalog.numeric(value) === best) {
      made.classList.add("best");
      made.append(element("span", "spoken", "best"));
    }
    if (String(value).length > 24 || made.textContent !== String(value)) made.title = String(value).slice(0, 2000);
    if (key === "place:verdict" && model.place?.below_source) made.append(" ", below());
    return made;
  }

  /* A difference to the first model or to the source, with its interval. */
  function differenceCell({ place }, key) {
    const found = place?.[Catalog.plain(key)];
    if (!found) return element("td", "number", place ? "–" : "");
    const made = element("td", "number", signed(found.difference));
    if (found.low !== null)
      made.append(element("small", "interval", `${signed(found.low)} to ${signed(found.high)}`));
    return made;
  }

  function signed(number) {
    return number > 0 ? `+${Verdict.figure(number, 3)}` : Verdict.figure(number, 3);
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
    const { sort: current, descending } = State.values;
    State.set(current === key ? { descending: !descending } : Catalog.sortedBy(key));
  }

  function start() {
    fillSort();
    fillFailed();
    State.on("filter sort descending pins blind", () => {
      fill();
      controls();
    });
    State.on("a b", mark);
    State.on("view filter sort descending differing blind", tabulate);
    State.on("pins", mark);
    filter.addEventListener("input", () => State.set({ filter: filter.value }));
    sort.addEventListener("change", () => State.set(Catalog.sortedBy(sort.value)));
    direction.addEventListener("click", () => State.set({ descending: !State.values.descending }));
    list.addEventListener("click", pressed);
    table.addEventListener("click", pressed);
  }

  return { start };
})();
