"use strict";

/* Hand: zooming and panning with the pointer, the wheel and the keyboard. */

const Hand = (() => {
  const CLICK = 5; // CSS pixels that a pointer may move during a click
  const REACH = 14; // CSS pixels on either side of a wipe's line in which it can be dragged
  const STEP = 0.125; // share of a panel that a key pans by
  const STEPS = Array.from({ length: 14 }, (_, step) => 2 ** (step - 6));

  const stage = document.getElementById("stage");
  const held = new Map(); // the pointers that are down, by id
  let drag = null;

  function scale() {
    return Stage.first() ? Stage.placement(Stage.first()).scale : 1;
  }

  /* Zoom to a number of screen pixels per pixel of the frame, around a point of the canvas that stays in place. */
  function zoomTo(next, panel = Stage.first(), at = null) {
    if (!panel) return;
    const { left, top, width: wide, height: high } = Stage.placement(panel);
    const { canvas } = panel;
    const zoom = State.clamp(next, ...State.ZOOM);
    const [px, py] = at ?? [canvas.width / 2, canvas.height / 2];
    const [width, height] = Stage.extent(State.values.frame);
    State.set({
      zoom,
      x: State.clamp((px - left) / wide - (px - canvas.width / 2) / (width * zoom), 0, 1),
      y: State.clamp((py - top) / high - (py - canvas.height / 2) / (height * zoom), 0, 1),
    });
  }

  function zoom(how) {
    const now = scale();
    if (how === "fit") State.set({ zoom: "fit", x: 0.5, y: 0.5 });
    if (how === "one") zoomTo(1);
    if (how === "in") zoomTo(STEPS.find((step) => step > now * 1.01) ?? now);
    if (how === "out") zoomTo(STEPS.findLast((step) => step < now / 1.01) ?? now);
  }

  function pan(panel, dx, dy) {
    if (State.values.zoom === "fit") {
      if (stage.classList.contains("scrolls")) return;
      zoomTo(scale(), panel);
    }
    const { width, height } = Stage.placement(panel);
    const { x, y } = State.values;
    State.set({ x: State.clamp(x - dx / width, 0, 1), y: State.clamp(y - dy / height, 0, 1) });
  }

  /* Pan one step in a direction: (1, 0) is right. */
  function look(dx, dy) {
    const panel = Stage.first();
    if (panel) pan(panel, -dx * STEP * panel.canvas.width, -dy * STEP * panel.canvas.height);
  }

  function panelOf(event) {
    return event.target.closest?.(".box")?.panel;
  }

  /* The position of an event on a panel's canvas, in screen pixels. */
  function at(panel, event) {
    const { left, top, width, height } = panel.box.getBoundingClientRect();
    const { canvas } = panel;
    return [((event.clientX - left) / width) * canvas.width, ((event.clientY - top) / height) * canvas.height];
  }

  function point(panel, event) {
    const { left, top, width, height } = Stage.placement(panel);
    const [px, py] = at(panel, event);
    Stage.point({ panel, u: (px - left) / width, v: (py - top) / height });
  }

  /* The distance between two fingers; null unless there are two. */
  function spread() {
    if (held.size !== 2) return null;
    const [one, other] = held.values();
    return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  }

  function pressed(event) {
    const panel = panelOf(event);
    if (!panel || event.button > 0) return;
    held.set(event.pointerId, event);
    panel.box.setPointerCapture(event.pointerId);
    const last = at(panel, event);
    const off = Math.abs(last[0] - State.values.wipe * panel.canvas.width);
    const line = panel.mode === "wipe" && off < REACH * devicePixelRatio;
    drag = { panel, start: event, last, line, moved: false, spread: spread() };
    if (event.pointerType !== "mouse") point(panel, event);
  }

  function moved(event) {
    const down = held.has(event.pointerId);
    const panel = down ? drag.panel : panelOf(event);
    if (!panel) {
      Stage.point(null);
      return;
    }
    if (down) {
      held.set(event.pointerId, event);
      dragged(panel, event);
    }
    point(panel, event);
  }

  function dragged(panel, event) {
    const now = at(panel, event);
    const far = Math.hypot(event.clientX - drag.start.clientX, event.clientY - drag.start.clientY);
    if (!drag.moved && far < CLICK && held.size === 1) return;
    drag.moved = true;
    if (held.size === 2) pinch(panel);
    else if (drag.line) State.set({ wipe: State.clamp(now[0] / panel.canvas.width, 0, 1) });
    else pan(panel, now[0] - drag.last[0], now[1] - drag.last[1]);
    drag.last = now;
  }

  function pinch(panel) {
    const wide = spread();
    const [one, other] = [...held.values()].map((event) => at(panel, event));
    const middle = [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
    if (drag.spread) zoomTo((scale() * wide) / drag.spread, panel, middle);
    drag.spread = wide;
  }

  function released(event) {
    if (!held.delete(event.pointerId)) return;
    const { panel, moved: far, line } = drag;
    if (held.size) {
      drag.last = at(panel, held.values().next().value);
      drag.spread = spread();
      return;
    }
    drag = null;
    if (!far && !line && event.type === "pointerup" && !panel.pair) State.set({ [State.values.slot]: panel.ids[0] });
  }

  function wheeled(event) {
    const panel = panelOf(event);
    const pinched = event.ctrlKey || event.metaKey;
    if (!panel || (stage.classList.contains("scrolls") && !pinched)) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    zoomTo(scale() * 2 ** (-pixels * (event.ctrlKey ? 0.01 : 0.0025)), panel, at(panel, event));
    point(panel, event);
  }

  function doubled(event) {
    const panel = panelOf(event);
    if (!panel) return;
    if (State.values.zoom === "fit") zoomTo(Math.max(1, 2 * scale()), panel, at(panel, event));
    else zoom("fit");
  }

  function start() {
    stage.addEventListener("pointerdown", pressed);
    document.addEventListener("pointermove", moved);
    stage.addEventListener("pointerup", released);
    stage.addEventListener("pointercancel", released);
    document.documentElement.addEventListener("pointerleave", ({ pointerType }) => {
      if (pointerType === "mouse") Stage.point(null); // after a finger is lifted, the pixel values stay
    });
    stage.addEventListener("wheel", wheeled, { passive: false });
    stage.addEventListener("dblclick", doubled);
    stage.addEventListener("click", ({ target }) => {
      const chip = target.closest(".chip");
      if (chip) Stage.choose(chip.dataset.act, chip.dataset.id);
    });
  }

  return { start, zoom, look };
})();
