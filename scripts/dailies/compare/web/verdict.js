"use strict";

/* Verdict: the line at the top of the page, which says which model is the best and how sure that is, and its links. */

const Verdict = (() => {
  const { element } = Panel;
  const box = document.getElementById("verdict");
  const said = document.getElementById("said");
  const extras = document.getElementById("extras");
  const copy = document.getElementById("copy");
  const copied = document.getElementById("copied");
  const EXTRAS = {
    "leaderboard.csv": ["Leaderboard", "leaderboard.csv: a line per model with rank, intervals and means"],
    "metrics.csv": ["All values", "metrics.csv: a line per model and frame"],
    "contact_sheet.png": ["Contact sheet", "contact_sheet.png: a few frames of every model in one picture"],
    "side_by_side.mp4": ["Video", "side_by_side.mp4: all models side by side"],
  };
  const FEW = 4; // tied models that are named at once
  const ranking = DATA.ranking;
  const metric = ranking && Catalog.metrics.get(ranking.metric);
  const ranked = DATA.models.filter((model) => model.place).sort((one, other) => one.place.rank - other.place.rank);
  const placed = ranked.filter((model) => model.place.verdict !== "knocked out");

  function figure(number, digits = 4) {
    return String(+number.toPrecision(digits)).replace("-", "−");
  }

  function withUnit(text) {
    return metric.unit ? `${text} ${metric.unit}` : text;
  }

  /* A difference, and its interval if there is one, such as "0.5 dB (95 % interval 0.4 to 0.6)". */
  function difference({ difference: mean, low, high }, sign) {
    const text = withUnit(figure(sign * mean, 3));
    if (low === null) return [text, element("span", "interval", " (too few frames for an interval)")];
    const [from, to] = [sign * low, sign * high].sort((one, other) => one - other);
    return [text, element("span", "interval", ` (95 % interval ${figure(from, 3)} to ${figure(to, 3)})`)];
  }

  /* A button with a model's label, which shows the model as the active one of A and B. */
  function pick(model) {
    const button = element("button", "pick");
    button.type = "button";
    button.dataset.id = model.id;
    button.append(element("bdi", "", model.short));
    return Tips.explain(button, `${model.name}. Select it to see it beside the other of A and B.`);
  }

  /* A button with the name of the metric, which shows the table. */
  function term() {
    const button = element("button", "term", metric.name);
    button.type = "button";
    return Tips.explain(button, `${Catalog.help(`mean:${metric.key}`)} Select it to see the table.`);
  }

  function phrase(...parts) {
    const made = element("span", "phrase");
    made.append(...parts);
    return made;
  }

  function result() {
    const [first, second] = placed;
    const ties = placed.filter((model) => model.place.verdict === "tie");
    const many = ties.length > FEW ? [`and ${ties.length - FEW} more`] : [];
    const named = ties.slice(0, FEW).flatMap((model, index) => (index ? [" ", pick(model)] : [pick(model)]));
    const lead = ties.length
      ? [element("strong", "", `Tie of ${ties.length} models`), " ", ...named, " ", ...many]
      : [element("strong", "", "Best"), " ", pick(first)];
    const frames = `${ranking.frames === ranking.of ? "all" : `${ranking.frames} of`} ${ranking.of} frames`;
    const trained = ranking.on_training_frames ? ", some seen in training" : excluded();
    const parts = [
      phrase(...lead),
      phrase(
        term(),
        ` ${withUnit(figure(first.place.mean))} on ${frames}${trained}`,
      ),
    ];
    if (second) parts.push(ahead(ties, second));
    else parts.push(phrase(ranked.length > placed.length ? "the only finalist" : "the only model"));
    const out = ranked.length - placed.length;
    if (out) parts.push(phrase(`${out} knocked out on ${ranking.knockout_frames} frames`));
    if (ranking.source !== null) parts.push(toSource(first));
    return parts;
  }

  function ahead(ties, second) {
    if (ties.length > 1) {
      const lead = difference(ties[1].place.to_first, -1);
      return phrase("the first leads the second of them by ", ...lead, ": not significant");
    }
    const lead = difference(second.place.to_first, -1);
    return phrase(...lead, " ahead of ", pick(second));
  }

  /* Why not all frames decide, if that is because not all were measured, or models were trained on the others. */
  function excluded() {
    const trained = new Set(placed.flatMap((model) => model.trained));
    const left = (ranking.measured ?? ranking.of) - ranking.frames;
    if (ranking.measured) {
      const seen = left && left <= trained.size ? `, ${left} of them seen in training` : "";
      return left ? ` (${ranking.measured} measured${seen})` : ", evenly spread";
    }
    return left && left === trained.size ? ` (${left} seen in training do not count)` : "";
  }

  /* Whether the first model is better than doing nothing, and how many are not. */
  function toSource(first) {
    const below = placed.filter((model) => model.place.below_source).length;
    const made = element("span", first.place.below_source ? "phrase source warning" : "phrase source");
    const gap = first.place.to_source;
    if (gap.difference === 0) made.append("equal to the source");
    else if (gap.difference < 0) made.append(...difference(gap, -1), " below the source");
    else made.append(...difference(gap, 1), " above the source");
    if (gap.low < 0 && gap.high > 0) made.append(": not significant");
    if (below) made.append(" ", belowMark(below));
    return made;
  }

  function belowMark(count) {
    const made = element("span", "mark below", `${count} of ${placed.length} below the source`);
    return Tips.explain(made, "Models that are significantly worse than the source. With too few frames for an interval, the mean decides.");
  }

  function fill() {
    if (BESIDE.newer.length) {
      const since = `This page is older than ${BESIDE.newer.join(", ")}. Run snakemake to update it.`;
      said.append(element("span", "phrase warning", since));
    }
    if (!ranking) {
      said.append(phrase(element("strong", "", "No verdict"), ` ${DATA.advice ?? "Nothing was measured."}`));
      return;
    }
    said.append(...result().flatMap((part) => [part, " "]));
    fillMore();
  }

  /* What would settle a tie, and how the model is promoted, behind a button. */
  function fillMore() {
    const more = document.getElementById("more");
    const [first] = placed;
    const ties = ranking.settle.length > 0;
    more.hidden = false;
    more.querySelector("summary").textContent = ties ? "Settle or promote" : "Promote";
    const list = element("ul");
    list.append(...ranking.settle.map((sentence) => element("li", "", sentence)));
    const name = DATA.registered_model;
    const command = `snakemake promote --config model=${first.id} registered_model=${name} alias=champion`;
    const which = ties ? `To register the first of them, ${first.short}, in MLflow:` : `To register ${first.short} in MLflow:`;
    const line = element("p", "command");
    const button = element("button", "", "Copy command");
    button.type = "button";
    button.addEventListener("click", () => copyText(command, button));
    line.append(element("code", "", command), " ", button);
    const names = `${name} and champion are proposals: use the names of your registered model and alias.`;
    more.querySelector("div").append(...(ties ? [list] : []), element("p", "", which), line, element("p", "", names));
  }

  function fillExtras(names) {
    extras.append(
      ...names.map((name) => {
        const [text, help] = EXTRAS[name];
        const link = element("a", "", text);
        Object.assign(link, { href: name, target: "_blank" });
        return Tips.explain(link, help);
      }),
    );
  }

  /* Copy the address of the current view. */
  function copyLink() {
    State.write();
    copyText(location.href, copy);
  }

  /* Copy a text. If the browser forbids that, select it in a field behind the button instead. */
  async function copyText(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      tell("Copied", button);
    } catch {
      const field = element("textarea", "address");
      field.value = text;
      field.readOnly = true;
      field.setAttribute("aria-label", "Text to copy");
      button.after(field);
      field.select();
      const done = document.execCommand("copy");
      if (done) field.remove();
      else field.addEventListener("blur", () => field.remove());
      tell(done ? "Copied" : "Copy the selected text", button);
    }
  }

  let timer = 0;
  function tell(text, button) {
    if (button.nextElementSibling !== copied) button.after(copied);
    copied.textContent = text;
    clearTimeout(timer);
    timer = setTimeout(() => (copied.textContent = ""), 3000);
  }

  function pressed({ target }) {
    const id = target.closest(".pick")?.dataset.id;
    if (id) State.set({ [State.values.slot]: id });
    if (target.closest(".term")) State.set({ view: "table" });
  }

  /* The list behind the button closes as menus do. A click outside does nothing else. */
  function closeMore(event) {
    const more = document.getElementById("more");
    const isOutside = event.type === "click" && !more.contains(event.target);
    if (!more.open || !(isOutside || event.key === "Escape")) return;
    more.open = false;
    event.stopPropagation();
    event.preventDefault();
    if (event.key === "Escape") more.querySelector("summary").focus();
  }

  function start() {
    fill();
    for (const type of ["click", "keydown"]) addEventListener(type, closeMore, true);
    fillExtras(BESIDE.files);
    box.addEventListener("click", pressed);
    copy.addEventListener("click", copyLink);
    State.on("blind", () => (box.hidden = Boolean(State.values.blind))); // it shows names
  }

  return { start, figure };
})();
