"use strict";

/* Metrics: a value per frame and model, from metrics.js, which is loaded after the first frame is shown. */

const Metrics = (() => {
  const known = new Map(DATA.metrics.map((metric) => [metric.name, { ...metric, values: {} }]));
  let onLoad = () => {};

  function load(listener) {
    if (!known.size) return;
    onLoad = listener;
    const script = document.createElement("script");
    script.src = "page/metrics.js";
    document.head.append(script);
  }

  function receive(tables) {
    for (const [name, metric] of known) metric.values = tables[name] ?? {};
    onLoad();
  }

  /* The selected metric; undefined if there is none, or in a blind test. */
  function current() {
    if (State.values.blind) return undefined;
    return known.get(State.values.metric) ?? known.get(Catalog.defaultMetric);
  }

  function of(id) {
    const values = current()?.values;
    return values && Object.hasOwn(values, id) ? values[id] : null;
  }

  function text(id, frame) {
    const value = of(id)?.[frame];
    return value === null || value === undefined ? "" : `${Catalog.brief(value)} ${current().unit}`.trim();
  }

  /* Frames by descending score, no two of them close together. */
  function ranked(score) {
    const distance = Math.ceil(DATA.frames.length / 50);
    const order = DATA.frames
      .map((_, frame) => [score(frame), frame])
      .filter(([value]) => value !== null && Number.isFinite(value))
      .sort(([one, i], [other, j]) => other - one || i - j);
    const chosen = [];
    for (const [, frame] of order) {
      if (chosen.every((other) => Math.abs(other - frame) >= distance)) chosen.push(frame);
    }
    return chosen;
  }

  function worst(id) {
    const values = of(id);
    const sign = current()?.higher_is_better ? -1 : 1;
    return values ? ranked((frame) => (values[frame] === null ? null : sign * values[frame])) : [];
  }

  /* Frames by how far apart the values of the listed models are. */
  function apart() {
    const rows = Catalog.listed().map(of).filter(Boolean);
    return ranked((frame) => {
      const values = rows.map((row) => row[frame]).filter((value) => value !== null);
      return values.length > 1 ? Math.max(...values) - Math.min(...values) : null;
    });
  }

  return { known, load, receive, current, of, text, worst, apart };
})();

/* Graph: a line per model of those values over the sequence, aligned with the scrubber above. */

const Graph = (() => {
  const EDGE = 6; // half the width of the scrubber's handle, in CSS pixels
  const NEAR = 14; // CSS pixels from the pointer within which a line is named
  /* The kinds of lines, those on top first. */
  const COLOURS = {
    a: "#f2a541",
    b: "#5cb8e6",
    hovered: "#ffffff",
    pinned: "#b8b8b8",
    best: "#b8b8b8",
    source: "#b8b8b8",
    other: "#5a5a5a",
  };
  const DASHES = { source: [5, 4] };
  const graph = document.getElementById("graph");
  const canvas = graph.querySelector("canvas");
  const needle = document.getElementById("needle");
  const scale = document.getElementById("graph-scale");
  const legend = document.getElementById("graph-values");
  const metric = document.getElementById("metric");
  const note = document.getElementById("metric-note");
  const marks = document.getElementById("marks");
  const worstButton = document.getElementById("worst");
  let walk = { key: "", at: -1 };
  let hovered = null; // the frame below the pointer
  let named = null; // the model whose line is named besides A and B
  let lines = []; // the models with a line
  let level = () => 0; // the height of a value, in CSS pixels from the top
  let wide = 0; // the width of the graph; asking for it at each frame makes a browser lay out the page twice

  function x(frame, width = wide) {
    const last = Math.max(1, DATA.frames.length - 1);
    return EDGE + (frame / last) * (width - 2 * EDGE);
  }

  /* Mark the training frames below the scrubber: those of A in an upper line, those of B in a lower one. */
  function mark() {
    const slots = ["a", "b"].filter((slot) => DATA.frames.some((_, frame) => Catalog.seen(State.values[slot], frame)));
    marks.hidden = !slots.length;
    const rows = slots.map((slot) => `${slot === "a" ? "Upper" : "Lower"} marks: frames that ${slot.toUpperCase()} was trained on.`);
    marks.ariaLabel = rows.join(" ");
    Tips.explain(marks, `${rows.join(" ")} Results on those mean little.`);
    const width = marks.clientWidth;
    const context = fine(marks);
    for (const slot of slots) {
      context.fillStyle = COLOURS[slot];
      const half = Math.max(1, x(1, width) - x(0, width)) / 2;
      DATA.frames.forEach((_, frame) => {
        if (Catalog.seen(State.values[slot], frame))
          context.fillRect(x(frame, width) - half, slot === "a" ? 0 : 4, 2 * half, 3);
      });
    }
  }

  /* The context of a canvas at the screen's resolution, scaled to CSS pixels. */
  function fine(target) {
    target.width = Math.round(target.clientWidth * devicePixelRatio);
    target.height = Math.round(target.clientHeight * devicePixelRatio);
    const context = target.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    return context;
  }

  function frameAt(event) {
    const last = Math.max(1, DATA.frames.length - 1);
    const share = (event.clientX - graph.getBoundingClientRect().left - EDGE) / (graph.clientWidth - 2 * EDGE);
    return Math.round(State.clamp(share, 0, 1) * last);
  }

  function show() {
    const current = Metrics.current();
    for (const part of [graph, legend, document.getElementById("jumps")]) part.hidden = !current;
    if (!current) return;
    metric.value = current.name;
    const advice = [current.higher_is_better ? "higher is better" : "lower is better", current.note]
      .filter(Boolean)
      .join("; ");
    note.textContent = advice;
    note.title = advice;
    draw();
  }

  /* What the line of a picture is. */
  function kind(id) {
    const { a, b, pins } = State.values;
    if (id === a) return "a";
    if (id === b) return "b";
    if (id === named) return "hovered";
    if (pins.includes(id)) return "pinned";
    return id === Catalog.SOURCE ? "source" : id === best() ? "best" : "other";
  }

  /* The model with the best mean of the metric; undefined if there is none. */
  function best() {
    const key = `mean:${Metrics.current().key}`;
    const value = Catalog.columns.includes(key) ? Catalog.best(key) : null;
    return value === null ? undefined : Catalog.shown.find((model) => Catalog.value(model, key) === value).id;
  }

  /* Draw the line of every model and of the source, with A and B on top. */
  function draw() {
    if (graph.hidden) return;
    wide = graph.clientWidth;
    const { a, b } = State.values;
    lines = [...new Set([...Catalog.listed(), Catalog.SOURCE, a, b])].filter((id) => Metrics.of(id));
    const drawn = lines
      .map((id) => [kind(id), Metrics.of(id)])
      .sort(([one], [other]) => Object.keys(COLOURS).indexOf(other) - Object.keys(COLOURS).indexOf(one));
    const context = fine(canvas);
    fit(drawn);
    for (const [ink, values] of drawn) {
      context.setLineDash(DASHES[ink] ?? []);
      trace(context, values, COLOURS[ink], ink.length === 1 ? 1.5 : 1, level);
    }
    label();
    move();
  }

  /* Fit the scale to the lines that stand out, so that a few bad models do not flatten them. Count the lines that leave
     it. The line below the pointer changes nothing. */
  function fit(drawn) {
    const numbers = (some) => some.flatMap(([, values]) => values).filter((each) => each !== null);
    const plain = ([ink]) => ink === "other" || ink === "hovered";
    const chosen = numbers(drawn.filter((line) => !plain(line)));
    const all = chosen.length ? chosen : numbers(drawn);
    const low = all.reduce((least, each) => Math.min(least, each), Infinity);
    const high = all.reduce((most, each) => Math.max(most, each), -Infinity);
    const tall = graph.clientHeight;
    level = (each) => tall - 4 - ((each - low) / (high - low || 1)) * (tall - 8);
    const leaving = (test) => drawn.filter(([, values]) => values.some((each) => each !== null && test(each))).length;
    const [above, below] = [leaving((each) => each > high), leaving((each) => each < low)];
    const texts = {
      "graph-high": all.length ? Catalog.brief(high) : "",
      "graph-above": above ? `${above} higher` : "",
      "graph-below": below ? `${below} lower` : "",
      "graph-low": all.length ? Catalog.brief(low) : "",
    };
    for (const [id, text] of Object.entries(texts)) document.getElementById(id).textContent = text;
    graph.classList.toggle("leaves-above", above > 0);
    graph.classList.toggle("leaves-below", below > 0);
    const models = above && below ? `${above} and ${below} lines leave it` : `${above || below} of the lines leave it`;
    const why = "The scale fits A, B, the source (dashed), the best model and pinned ones.";
    Tips.explain(scale, above || below ? `${why} ${models}.` : why);
  }

  /* Write A and B beside the right ends of their lines, without overlaps. */
  function label() {
    const { a, b } = State.values;
    const placed = [];
    for (const [slot, id] of Object.entries({ a, b: b === a ? null : b })) {
      const tag = graph.querySelector(`.line-name.${slot}`);
      const end = lines.includes(id) ? Metrics.of(id).findLast((value) => value !== null) : undefined;
      tag.hidden = end === undefined;
      if (end !== undefined) placed.push({ tag, top: level(end) - tag.offsetHeight / 2 });
    }
    placed.sort((one, other) => one.top - other.top);
    let free = 0;
    for (const each of placed) {
      each.top = free = Math.max(free, each.top);
      free += each.tag.offsetHeight;
    }
    let limit = graph.clientHeight;
    for (const { tag, top } of placed.reverse()) {
      limit = Math.min(top, limit - tag.offsetHeight);
      tag.style.top = `${Math.max(0, limit)}px`;
    }
  }

  /* Show the values of the frame below the pointer beside it: those of A, B and the nearest line. */
  function tell(event) {
    const { a, b } = State.values;
    const value = (id) => Panel.element("span", "figure", Metrics.text(id, hovered) || "–");
    const rows = ["a", "b"]
      .filter((slot) => Metrics.of(State.values[slot]))
      .map((slot) => [Panel.element("b", `tag ${slot}`, slot.toUpperCase()), value(State.values[slot])]);
    if (named && named !== a && named !== b) rows.push([Panel.element("bdi", "", Catalog.name(named)), value(named)]);
    const lines = rows.map((parts) => {
      const line = Panel.element("div", "row");
      line.append(...parts);
      return line;
    });
    const { top, bottom } = graph.getBoundingClientRect();
    const title = Panel.element("div", "", DATA.frames[hovered][0]);
    Tips.showAt({ left: event.clientX + NEAR, top, bottom }, title, ...lines);
  }

  /* Highlight the line of a model; null highlights none but A and B. */
  function name(id) {
    if (named === id) return;
    named = id;
    draw();
  }

  /* The model whose line is nearest to the pointer. */
  function lineAt(event) {
    const y = event.clientY - graph.getBoundingClientRect().top;
    const distances = lines
      .filter((id) => Metrics.of(id)[hovered] !== null)
      .map((id) => [Math.abs(level(Metrics.of(id)[hovered]) - y), id])
      .sort(([one], [other]) => one - other);
    return distances.length && distances[0][0] <= NEAR ? distances[0][1] : null;
  }

  /* The model of the list or of the pictures that the pointer is on. */
  function modelAt({ target }) {
    const place = target.closest?.("#list li[data-id], .panel.single[data-ids]");
    return place ? (place.dataset.id ?? place.dataset.ids.split(" ")[0]) : null;
  }

  function trace(context, values, ink, thick, y) {
    context.beginPath();
    let on = false;
    values.forEach((each, frame) => {
      if (each === null) {
        on = false;
        return;
      }
      const half = on || (values[frame + 1] ?? null) !== null ? 0.5 : 1.5; // a frame without neighbours is a dot
      if (on) context.lineTo(x(frame), y(each));
      else context.moveTo(x(frame) - half, y(each));
      if (!on) context.lineTo(x(frame) + half, y(each));
      on = true;
    });
    context.strokeStyle = ink;
    context.lineWidth = thick;
    context.stroke();
  }

  function move() {
    if (graph.hidden) return;
    needle.style.transform = `translateX(${x(State.values.frame)}px)`;
    legend.replaceChildren(
      ...["a", "b"]
        .filter((slot) => Metrics.of(State.values[slot]))
        .map((slot) => {
          const id = State.values[slot];
          const line = Panel.element("p");
          line.append(
            Panel.element("b", `tag ${slot}`, slot.toUpperCase()),
            Panel.element("bdi", "name", Catalog.name(id)),
            Panel.element("span", "figure", Metrics.text(id, State.values.frame) || "–"),
          );
          return line;
        }),
    );
  }

  /* Go to the next frame of a ranking, or to the first one of another ranking. */
  function jump(key, frames) {
    if (!frames.length) return;
    walk = { key, at: walk.key === key ? (walk.at + 1) % frames.length : 0 };
    State.set({ frame: frames[walk.at] });
  }

  /* Which of A and B the button for the worst frames is about: the active one if it has values. */
  function worstSlot() {
    const { slot } = State.values;
    return [slot, "a", "b"].find((each) => Metrics.of(State.values[each]));
  }

  function worst() {
    const slot = worstSlot();
    if (!slot) return;
    const id = State.values[slot];
    jump(`worst ${id} ${State.values.metric}`, Metrics.worst(id));
  }

  /* Name the model whose worst frames the button shows. */
  function showWorst() {
    const slot = worstSlot();
    worstButton.disabled = !slot;
    worstButton.textContent = slot ? `Worst of ${slot.toUpperCase()}` : "Worst";
    worstButton.title = slot ? `Next of the worst frames of ${Catalog.name(State.values[slot])} (N)` : "";
  }

  function apart() {
    if (Metrics.current()) jump(`apart ${State.values.metric} ${State.values.filter}`, Metrics.apart());
  }

  function start() {
    metric.append(...[...Metrics.known.keys()].map((name) => new Option(name, name)));
    metric.addEventListener("change", () => State.set(Catalog.measuredBy(metric.value)));
    worstButton.addEventListener("click", worst);
    document.getElementById("apart").addEventListener("click", apart);
    const go = (event) => State.set({ frame: frameAt(event) });
    graph.addEventListener("pointerdown", (event) => {
      graph.setPointerCapture(event.pointerId);
      go(event);
    });
    graph.addEventListener("pointermove", (event) => {
      hovered = frameAt(event);
      name(lineAt(event));
      if (event.buttons & 1) go(event);
      tell(event);
    });
    graph.addEventListener("pointerleave", () => {
      hovered = null;
      name(null);
      Tips.hide();
    });
    document.addEventListener("pointerover", (event) => {
      if (!graph.hidden && !graph.contains(event.target)) name(modelAt(event));
    });
    State.on("metric blind", show);
    State.on("a b pins filter", draw);
    State.on("a b slot metric blind", showWorst);
    State.on("a b blind", mark);
    State.on("frame", move);
    new ResizeObserver(draw).observe(graph);
    new ResizeObserver(mark).observe(document.getElementById("track"));
    Metrics.load(() => {
      show();
      showWorst();
      Stage.showValues();
    });
  }

  return { start, worst, apart };
})();
