"use strict";

/* Stage: the panels on the screen. They zoom and move together and always show the same frame. */

const Stage = (() => {
  const PAIRS = ["wipe", "flicker", "difference", "onion"];
  const NARROWEST = 12; // rem of a grid's cell
  const GAP = 0.375,
    CAPTION = 1.75; // rem, as in the stylesheet
  const AHEAD = 4; // frames loaded before they are played
  const MOVING = 1.5e6; // pixels of full frames that a grid shows while it plays
  const STANDING = 16e6; // and while it does not, where thumbnails are as sharp
  const HEAVY = 64e6; // and where they are nearly so; beyond it not all values are shown either

  const stage = document.getElementById("stage");
  const notes = document.getElementById("notes");
  const percent = document.getElementById("percent");
  const pixel = document.getElementById("pixel");
  const fit = document.querySelector('[data-zoom="fit"]');
  const panels = new Map();
  const watcher = new IntersectionObserver(seen, { root: stage, rootMargin: "25%" });
  const sizes = new ResizeObserver(resized);
  let order = [];
  let shown = null; // the frame that is on the screen
  let phase = "a"; // of Flicker
  let pointer = null; // {panel, u, v}: where in the frame the pointer is, 0 to 1
  let scheduled = false;
  let hurried = false;
  let scrolled = 0; // how far the grid was, for when it comes back
  let stretched = 0; // what stretch() said last

  /* Which panels the state asks for: [mode, pictures] each. */
  function plan() {
    const { view, a, b, pins, blind } = State.values;
    if (view === "table") return [];
    if (PAIRS.includes(view)) return [[view, [a, b]]];
    const all = [...Catalog.fixed, ...Catalog.listed()];
    const pinned = all.filter((id) => pins.includes(id));
    const side = pinned.length > 1 && !blind ? pinned : [...new Set([a, b])];
    return (view === "side" ? side : all).map((id) => ["single", [id]]);
  }

  function arrange() {
    const { view } = State.values;
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
    if (document.activeElement !== activeElement) activeElement.focus(); // what is moved loses it
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

  /* Choose the number of columns that shows the pictures largest; a grid scrolls when they would be too small. */
  function layOut() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const [width, height] = [stage.clientWidth - 2 * GAP * rem, stage.clientHeight - 2 * GAP * rem];
    if (!order.length || width <= 0 || height <= 0) return;
    const grid = State.values.view === "grid";
    let best = largest(width, height, rem);
    const scrolls = grid && best.cell < Math.min(NARROWEST * rem, width);
    if (scrolls) {
      const columns = Math.max(1, Math.floor((width + GAP * rem) / ((NARROWEST + GAP) * rem)));
      best = { columns, cell: (width - GAP * rem * (columns - 1)) / columns };
    }
    const [w, h] = extent(0);
    const rows = Math.ceil(order.length / best.columns);
    const row = grid ? (best.cell * h) / w + CAPTION * rem : (height - GAP * rem * (rows - 1)) / rows;
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
      const down = (height - GAP * rem * (rows - 1)) / rows - CAPTION * rem;
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

  /* The size at which a frame is shown at 1:1: that of the largest picture of it. */
  function extent(frame) {
    const [, width, height] = DATA.frames[frame];
    return [width * Catalog.scale, height * Catalog.scale];
  }

  /* Past 1:1 a whole number, so that all pixels are squares of one size. */
  function whole(scale) {
    return scale > 1 ? Math.floor(scale) : scale;
  }

  /* Where a frame lies on a panel's canvas, in screen pixels. */
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

  /* Whether the picture moves: then it matters more that all of it comes in time than how sharp it is. */
  function moving() {
    return hurried || Transport.playing();
  }

  /* How many pixels the frames on some panels have. */
  function pixelsOf(some, frame) {
    return some.flatMap(({ ids }) => ids).reduce((sum, id) => sum + Pictures.pixels(id, frame, false), 0);
  }

  /* How far beyond its own size a grid shows a thumbnail in the place of the frame; 0 where it shows frames only. */
  function stretch(near, frame) {
    if (State.values.view !== "grid") return 0;
    const pixels = pixelsOf(near, frame);
    if (moving()) return pixels > HEAVY ? Infinity : pixels > MOVING ? 4 : 0;
    return pixels > HEAVY ? 1.5 : pixels > STANDING ? 1 : 0;
  }

  /* Whether a thumbnail is shown in the place of the frame. */
  function thumbnailServes(panel, id, frame) {
    const { width, height } = placement(panel, frame);
    const small = Math.max(width, height) <= stretched * DATA.thumbnail;
    return small && Catalog.shelves.get(id).thumbnails && Pictures.peek(id, frame, true).status !== "broken";
  }

  /* The picture to draw: while a full frame is on its way, its thumbnail, but never where two are compared. */
  function picture(panel, id, frame) {
    return Pictures.best(id, frame, !panel.pair && (!Transport.playing() || thumbnailServes(panel, id, frame)));
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

  /* A new frame is shown when all panels on the screen have it. */
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
    if (ready && (near.length || !order.length)) tellReady();
  }

  /* For whoever measures or tests the page. */
  function tellReady() {
    if (!performance.getEntriesByName("dailies-shown").length) performance.mark("dailies-shown");
    document.documentElement.dataset.ready = shown;
  }

  /* Ask for what is to be seen now and, once it is there, for what comes next. */
  function load(near, ahead) {
    const { frame } = State.values;
    const must = [],
      may = [],
      later = [];
    const next = ahead || Transport.playing() ? coming(frame) : [];
    for (const panel of near) {
      for (const id of panel.ids) {
        const serves = thumbnailServes(panel, id, frame);
        const first = serves || (!panel.pair && !Transport.playing() && Catalog.shelves.get(id).thumbnails);
        must.push([id, frame, first]);
        if (first && !serves) may.push([id, frame, false]);
        next.forEach((each, step) => (later[step] ??= []).push([id, each, serves]));
      }
    }
    const read = pointer && !moving() ? readable().flatMap((panel) => panel.ids) : [];
    Pictures.want(must, [...may, ...read.map((id) => [id, frame, false]), ...later.flat()]);
  }

  /* The frames to load ahead, the soonest first. */
  function coming(frame) {
    const count = DATA.frames.length;
    const next = Transport.playing() ? Transport.coming(AHEAD) : [frame + 1, frame - 1 + count];
    return [...new Set(next.map((each) => each % count))].filter((each) => each !== frame);
  }

  function draw(panel) {
    const entries = panel.ids.map((id) => picture(panel, id, shown));
    if (!entries.every(settled)) return;
    const { wipe, onion, gain } = State.values;
    const looks = { wipe, onion, difference: gain, flicker: phase }[panel.mode];
    panel.draw(entries, { place: placement(panel, shown), extent: extent(shown), looks, frame: shown });
  }

  /* Names and small buttons of all panels. */
  function caption() {
    const digits = new Map(
      Catalog.listed()
        .slice(0, 9)
        .map((id, index) => [id, index + 1]),
    );
    for (const panel of order) panel.caption(digits);
    measure();
  }

  /* Each model's metric on the frame, where there is one. */
  function measure() {
    for (const panel of order) {
      for (const { id, figure } of panel.labels) if (id) figure.textContent = Metrics.said(id, State.values.frame);
      if (panel.root.dataset.phase !== phase) panel.root.dataset.phase = phase;
    }
  }

  /* Say once, for the whole stage, what is not the frames themselves, and how large a pixel is. */
  function report(near) {
    const drawn = near.filter((panel) => panel.found);
    const thumbnails = drawn.some((panel) => panel.found.some(({ thumbnail }) => thumbnail));
    const deep = drawn.some((panel) => panel.ids.some((id) => Catalog.shelves.get(id).bit_depth > 8));
    const said = [
      thumbnails && moving() ? "Thumbnails, until it stands still." : "",
      thumbnails && !moving() ? "Thumbnails: zoom in for the frames' own pixels." : "",
      deep ? "8-bit proxies of deeper frames." : "",
    ]
      .filter(Boolean)
      .join(" ");
    if (notes.textContent !== said) notes.textContent = said;
    fit.setAttribute("aria-pressed", State.values.zoom === "fit");
    const scale = drawn.length ? `${+(drawn[0].place.scale * 100).toPrecision(3)} %` : "";
    if (percent.textContent !== scale) percent.textContent = scale;
  }

  /* Which panels show values: the one below the pointer and all others, unless their whole frames are too much. */
  function readable() {
    const near = order.filter((panel) => panel.near && panel !== pointer.panel);
    return pixelsOf([pointer.panel, ...near], State.values.frame) > HEAVY ? [pointer.panel] : [pointer.panel, ...near];
  }

  /* Show the pixel below the pointer on every panel. */
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

  /* Take where the pointer is; null when it left. */
  function point(next) {
    if (pointer === next) return;
    pointer = next;
    refresh();
  }

  /* Alternate A and B for Flicker, at the pace chosen. */
  let beat = 0;
  function pace() {
    clearInterval(beat);
    const { view, rate, slot } = State.values;
    turn(slot);
    if (view === "flicker" && rate) beat = setInterval(() => turn(phase === "a" ? "b" : "a"), 1000 / rate);
  }

  function turn(next) {
    phase = next;
    measure();
    refresh();
  }

  /* Make a picture A or B, or pin it, or let it go. */
  function choose(act, id) {
    const { pins } = State.values;
    if (act === "pin") State.set({ pins: pins.includes(id) ? pins.filter((pin) => pin !== id) : [...pins, id] });
    else State.set({ [act]: id, slot: act });
  }

  /* While the scrubber is dragged nothing is loaded ahead. */
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
    State.on("view a b pins filter sort descending blind", arrange);
    State.on("slot", caption);
    State.on("view slot rate", pace);
    State.on("frame metric", () => {
      measure();
      refresh();
    });
    State.on("zoom x y onion gain", refresh);
    State.on("zoom", () => stage.classList.toggle("zoomed", State.values.zoom !== "fit"));
    State.on("wipe", () => {
      stage.style.setProperty("--wipe", State.values.wipe);
      refresh();
    });
  }

  return { start, first, extent, placement, point, choose, hurry, moving, measure, pace };
})();
