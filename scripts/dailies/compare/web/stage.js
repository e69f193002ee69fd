"use strict";

/* Stage: the panels on the screen. They zoom and pan together and always show the same frame. */

const Stage = (() => {
  const PAIRS = ["wipe", "flicker", "difference", "onion"];
  const MIN_CELL = 12; // rem of the width of a grid's cell
  const GAP = 0.375; // rem, as in the stylesheet
  const AHEAD = 4; // frames loaded ahead of playback
  const READABLE = 250; // ms between updates of the values during playback
  const MOVING = 1.5e6; // pixels up to which a grid shows full frames during playback
  const STILL = 16e6; // the same while paused, if thumbnails would be as sharp
  const HEAVY = 64e6; // the same if thumbnails would be nearly as sharp; also the limit for reading all pixels

  const stage = document.getElementById("stage");
  const notes = document.getElementById("notes");
  const percent = document.getElementById("percent");
  const pixel = document.getElementById("pixel");
  const fit = document.querySelector('[data-zoom="fit"]');
  const panels = new Map();
  const watcher = new IntersectionObserver(seen, { root: stage, rootMargin: "25%" });
  const sizes = new ResizeObserver(resized);
  let order = [];
  let shown = null; // the frame on the screen
  let phase = "a"; // which of A and B Flicker shows
  let pointer = null; // {panel, u, v}: the position of the pointer in the frame, from 0 to 1
  let scheduled = false;
  let hurried = false;
  let scrolled = 0; // the scroll position of the grid, to restore it
  let valued = 0; // time at which the values were updated
  let stretched = 0; // the last result of stretch()

  /* The panels of the current state, as [mode, ids]. */
  function plan() {
    const { view, a, b, pins, blind, errors } = State.values;
    if (view === "table") return [];
    if (PAIRS.includes(view)) return [[view, [a, b]]];
    const all = [...Catalog.fixed, ...Catalog.listed()];
    const pinned = all.filter((id) => pins.includes(id));
    const side = pinned.length > 1 && !blind ? pinned : [...new Set([a, b])];
    if (view !== "error") return (view === "side" ? side : all).map((id) => ["single", [id]]);
    const wrong = (errors === "all" ? all : side).filter((id) => id !== Catalog.REFERENCE);
    return (wrong.length ? wrong : [Catalog.SOURCE]).map((id) => ["error", [id, Catalog.REFERENCE]]);
  }

  /* Whether the view shows all models. */
  function everything() {
    const { view, errors } = State.values;
    return view === "grid" || (view === "error" && errors === "all");
  }

  function arrange() {
    const view = everything() ? "grid" : State.values.view;
    if (stage.dataset.view === "grid" && view !== "grid") scrolled = stage.scrollTop;
    order = plan().map(([mode, ids]) => {
      const key = [mode, ...ids].join("\n");
      if (!panels.has(key)) panels.set(key, watched(new Panel(mode, ids)));
      return panels.get(key);
    });
    for (const [key, panel] of panels) {
      if (order.includes(panel)) continue;
      watcher.unobserve(panel.root);
      sizes.unobserve(panel.box);
      panel.root.remove();
      panels.delete(key);
    }
    const { activeElement } = document;
    order.forEach((panel, index) => {
      if (stage.children[index] !== panel.root) stage.insertBefore(panel.root, stage.children[index] ?? null);
    });
    if (document.activeElement !== activeElement) activeElement.focus(); // moving an element removes its focus
    stage.hidden = view === "table";
    layOut();
    if (view === "grid" && stage.dataset.view !== view) stage.scrollTop = scrolled;
    stage.dataset.view = view;
    caption();
    refresh();
  }

  function watched(panel) {
    watcher.observe(panel.root);
    sizes.observe(panel.box);
    return panel;
  }

  /* The height of a caption in rem, which the stylesheet decides. */
  function captionHeight() {
    const name = State.values.view === "grid" ? "--grid-caption" : "--caption";
    return parseFloat(getComputedStyle(stage).getPropertyValue(name));
  }

  /* Choose the number of columns that shows the pictures largest. A grid scrolls if they would be too small. */
  function layOut() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const [width, height] = [stage.clientWidth - 2 * GAP * rem, stage.clientHeight - 2 * GAP * rem];
    if (!order.length || width <= 0 || height <= 0) return;
    const grid = everything();
    let best = largest(width, height, rem);
    const scrolls = grid && best.cell < Math.min(MIN_CELL * rem, width);
    if (scrolls) {
      const columns = Math.max(1, Math.floor((width + GAP * rem) / ((MIN_CELL + GAP) * rem)));
      best = { columns, cell: (width - GAP * rem * (columns - 1)) / columns };
    }
    const [w, h] = extent(0);
    const rows = Math.ceil(order.length / best.columns);
    const row = grid ? (best.cell * h) / w + captionHeight() * rem : (height - GAP * rem * (rows - 1)) / rows;
    stage.style.setProperty("--columns", best.columns);
    stage.style.setProperty("--row", `${Math.floor(row)}px`);
    stage.classList.toggle("scrolls", scrolls);
  }

  function largest(width, height, rem) {
    const [w, h] = extent(0);
    let best = { scale: 0 };
    for (let columns = order.length; columns >= 1; columns--) {
      const rows = Math.ceil(order.length / columns);
      const across = (width - GAP * rem * (columns - 1)) / columns;
      const down = (height - GAP * rem * (rows - 1)) / rows - captionHeight() * rem;
      const cell = Math.min(across, (down * w) / h);
      const scale = whole((cell * devicePixelRatio) / w);
      const empty = rows * columns - order.length;
      const better = scale > best.scale * 1.001 || (scale === best.scale && empty < best.empty);
      if (better || !best.columns) best = { columns, cell, scale, empty };
    }
    return best;
  }

  function seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const panel = order.find((each) => each.root === target);
      if (panel) panel.near = isIntersecting;
    }
    refresh();
  }

  function resized(entries) {
    for (const { target, devicePixelContentBoxSize, contentRect } of entries) {
      const [exact] = devicePixelContentBoxSize ?? [];
      target.panel.resize(
        exact?.inlineSize ?? Math.round(contentRect.width * devicePixelRatio),
        exact?.blockSize ?? Math.round(contentRect.height * devicePixelRatio),
      );
    }
    refresh();
  }

  /* The size of a frame at 1:1: that of its largest picture. */
  function extent(frame) {
    const [, width, height] = DATA.frames[frame];
    return [width * Catalog.scale, height * Catalog.scale];
  }

  /* Round a scale above 1:1 down to a whole number, so that all pixels are squares of the same size. */
  function whole(scale) {
    return scale > 1 ? Math.floor(scale) : scale;
  }

  /* The rectangle of a frame on a panel's canvas, in screen pixels. */
  function placement(panel, frame = State.values.frame) {
    const { zoom, x, y } = State.values;
    const [width, height] = extent(frame);
    const { canvas } = panel;
    const fitting = zoom === "fit";
    const scale = fitting ? whole(Math.min(canvas.width / width, canvas.height / height)) : zoom;
    const [u, v] = fitting ? [0.5, 0.5] : [x, y];
    return {
      scale,
      left: Math.round(canvas.width / 2 - u * width * scale),
      top: Math.round(canvas.height / 2 - v * height * scale),
      width: width * scale,
      height: height * scale,
    };
  }

  /* Whether frames change continuously. If so, being on time matters more than sharpness. */
  function moving() {
    return hurried || Transport.playing();
  }

  /* The number of pixels of a frame's pictures on some panels. */
  function pixelsOf(some, frame) {
    const ids = new Set(some.flatMap((panel) => panel.ids));
    return [...ids].reduce((sum, id) => sum + Pictures.pixels(id, frame, false), 0);
  }

  /* Up to which multiple of its own size a thumbnail replaces the frame in a grid; 0 if it never does. */
  function stretch(near, frame) {
    if (!everything()) return 0;
    const pixels = pixelsOf(near, frame);
    if (moving()) return pixels > HEAVY ? Infinity : pixels > MOVING ? 4 : 0;
    return pixels > HEAVY ? 1.5 : pixels > STILL ? 1 : 0;
  }

  /* Whether thumbnails replace the frames. */
  function thumbnailServes(panel, frame) {
    const { width, height } = placement(panel, frame);
    const small = Math.max(width, height) <= stretched * DATA.thumbnail;
    const found = (id) => Pictures.small(id) && Pictures.peek(id, frame, true).status !== "broken";
    return small && panel.ids.every(found);
  }

  /* The picture to draw. A thumbnail stands in for a frame that is loading, except where two pictures are compared. */
  function picture(panel, id, frame) {
    const serves = thumbnailServes(panel, frame);
    if (panel.mode === "error") return Pictures.peek(id, frame, serves); // both or none
    return Pictures.best(id, frame, !panel.pair && (!Transport.playing() || serves));
  }

  function settled({ status }) {
    return status !== "waiting" && status !== "loading";
  }

  function refresh() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      render();
    });
  }

  /* Draw the panels. A new frame is shown once all panels on the screen have it. */
  function render() {
    const near = order.filter((panel) => panel.near);
    const { frame } = State.values;
    stretched = stretch(near, frame);
    const ready = near.every((panel) => panel.ids.every((id) => settled(picture(panel, id, frame))));
    load(near, ready && !hurried);
    if (ready || shown === null) shown = frame;
    for (const panel of near) draw(panel);
    if (near.length) report(near);
    locate();
    Transport.shown(shown, ready);
    if (ready && (near.length || !order.length)) markReady();
  }

  /* For benchmarks and tests of the page. */
  function markReady() {
    if (!performance.getEntriesByName("dailies-shown").length) performance.mark("dailies-shown");
    document.documentElement.dataset.ready = shown;
  }

  /* Request the pictures of the current frame and, once they are loaded, those of the next ones. */
  function load(near, ahead) {
    const { frame } = State.values;
    const required = [],
      optional = [],
      later = [];
    const next = ahead || Transport.playing() ? coming(frame) : [];
    for (const panel of near) {
      for (const id of panel.ids) {
        const serves = thumbnailServes(panel, frame);
        const first = serves || (panel.mode === "single" && !Transport.playing() && Pictures.small(id));
        required.push([id, frame, first]);
        if (first && !serves) optional.push([id, frame, false]);
        next.forEach((each, step) => (later[step] ??= []).push([id, each, serves]));
      }
    }
    const read = pointer && !moving() ? readable().flatMap((panel) => panel.ids) : [];
    Pictures.request(required, [...optional, ...read.map((id) => [id, frame, false]), ...later.flat()]);
  }

  /* The frames to load ahead, the next one first. */
  function coming(frame) {
    const count = DATA.frames.length;
    const next = Transport.playing() ? Transport.coming(AHEAD) : [frame + 1, frame - 1 + count];
    return [...new Set(next.map((each) => each % count))].filter((each) => each !== frame);
  }

  function draw(panel) {
    const entries = panel.ids.map((id) => picture(panel, id, shown));
    if (!entries.every(settled)) return;
    const { wipe, onion, gain } = State.values;
    const looks = { wipe, onion, difference: gain, error: gain, flicker: phase }[panel.mode];
    panel.draw(entries, { place: placement(panel, shown), extent: extent(shown), looks, frame: shown });
  }

  /* Update the captions of all panels. */
  function caption() {
    const digits = new Map(
      Catalog.listed()
        .slice(0, 9)
        .map((id, index) => [id, index + 1]),
    );
    for (const panel of order) panel.caption(digits);
    showValues();
  }

  /* Update the value of the metric on every panel. */
  function showValues() {
    valued = performance.now();
    for (const panel of order) {
      for (const { id, figure } of panel.labels) if (id) figure.textContent = Metrics.text(id, State.values.frame);
      if (panel.root.dataset.phase !== phase) panel.root.dataset.phase = phase;
    }
  }

  /* Update the values at a new frame. During playback nobody can read more than a few a second, and each update makes a
     browser lay out all captions. */
  function refreshValues() {
    if (!Transport.playing() || performance.now() - valued > READABLE) showValues();
  }

  /* Show the zoom, and a note if pictures are not the frames themselves. */
  function report(near) {
    const { view } = State.values;
    const drawn = near.filter((panel) => panel.found);
    const thumbnails = drawn.some((panel) => panel.found.some(({ thumbnail }) => thumbnail));
    const deep = drawn.some((panel) => panel.ids.some((id) => Catalog.layers.get(id).bit_depth > 8));
    const note = [
      thumbnails && moving() ? "Thumbnails until playback stops." : "",
      thumbnails && !moving() ? "Thumbnails: zoom in for the frames' own pixels." : "",
      thumbnails && view === "error" ? "Errors of thumbnails are smaller than those of the frames." : "",
      deep ? "8-bit proxies of deeper frames." : "",
    ]
      .filter(Boolean)
      .join(" ");
    if (notes.textContent !== note) notes.textContent = note;
    fit.setAttribute("aria-pressed", State.values.zoom === "fit");
    const scale = drawn.length ? `${+(drawn[0].place.scale * 100).toPrecision(3)} %` : "";
    if (percent.textContent !== scale) percent.textContent = scale;
  }

  /* The panels that show pixel values: all, or only the one below the pointer if full frames of all are too much. */
  function readable() {
    const near = order.filter((panel) => panel.near && panel !== pointer.panel);
    return pixelsOf([pointer.panel, ...near], State.values.frame) > HEAVY ? [pointer.panel] : [pointer.panel, ...near];
  }

  /* Mark the pixel below the pointer on every panel, and show its values. */
  function locate() {
    if (pointer && !order.includes(pointer.panel)) pointer = null;
    const inside = pointer && pointer.u >= 0 && pointer.u < 1 && pointer.v >= 0 && pointer.v < 1;
    const read = inside ? readable() : [];
    const [width, height] = extent(shown);
    pixel.textContent = inside ? `x ${Math.floor(pointer.u * width)}  y ${Math.floor(pointer.v * height)}` : "";
    for (const panel of order) {
      panel.mark(inside && panel.near ? pointer : null);
      panel.read(read.includes(panel) ? pointer : null, shown);
    }
  }

  /* Set the position of the pointer; null if it is on no panel. */
  function point(next) {
    if (pointer === next) return;
    pointer = next;
    refresh();
  }

  /* Alternate A and B in Flicker, at the chosen rate. */
  let beat = 0;
  function pace() {
    clearInterval(beat);
    const { view, rate, slot } = State.values;
    turn(slot);
    if (view === "flicker" && rate) beat = setInterval(() => turn(phase === "a" ? "b" : "a"), 1000 / rate);
  }

  function turn(next) {
    phase = next;
    showValues();
    refresh();
  }

  /* Show a picture as A or B, or pin or unpin it. */
  function choose(act, id) {
    const { pins } = State.values;
    if (act === "pin") State.set({ pins: pins.includes(id) ? pins.filter((pin) => pin !== id) : [...pins, id] });
    else State.set({ [act]: id, slot: act });
  }

  /* While the scrubber is dragged, nothing is loaded ahead. */
  function hurry(on) {
    hurried = on;
    refresh();
  }

  function first() {
    return order[0];
  }

  function start() {
    stage.addEventListener("scroll", refresh, { passive: true });
    new ResizeObserver(() => {
      layOut();
      refresh();
    }).observe(stage);
    Pictures.onArrival(refresh);
    State.on("view errors a b pins filter sort descending blind", arrange);
    State.on("exposure gamma channel", () => order.forEach((panel) => panel.tint()));
    State.on("slot", caption);
    State.on("view slot rate", pace);
    State.on("frame metric", () => {
      refreshValues();
      refresh();
    });
    State.on("zoom x y onion gain channel", refresh);
    State.on("zoom", () => stage.classList.toggle("zoomed", State.values.zoom !== "fit"));
    State.on("wipe", () => {
      stage.style.setProperty("--wipe", State.values.wipe);
      refresh();
    });
  }

  return { start, first, extent, placement, point, choose, hurry, moving, showValues, pace };
})();
