"use strict";

/* Focus: each group of controls is one stop of the Tab key, and the arrow keys move inside it. */

const Focus = (() => {
  const REGIONS = ["#head", "#verdict", "#list", "#options", "#look", "#ballot", "#stage", "#table", "#controls", "#jumps"];
  const ROWS = "li, tr, .panel";
  const ITEMS = "button, select, input, a[href], summary";
  const regions = REGIONS.map((selector) => document.querySelector(selector));
  const held = new Map(); // region -> the control that had the focus last

  function items(region) {
    return [...region.querySelectorAll(ITEMS)].filter((each) => !each.disabled && each.checkVisibility());
  }

  /* Make one control of each region a stop of the Tab key: the one that had the focus last, a pressed one, or the
     first. Nothing else depends on this, so it is done when the key is pressed. */
  function settle() {
    for (const region of regions) {
      const all = items(region);
      const pressed = all.find((each) => each.ariaPressed === "true" && !each.matches(".chip"));
      const stop = all.includes(held.get(region)) ? held.get(region) : (pressed ?? all[0]);
      for (const each of all) each.tabIndex = each === stop ? 0 : -1;
    }
  }

  /* Return the control that an arrow key moves to: left and right in page order, up and down to another row. */
  function neighbour(all, from, key) {
    const index = all.indexOf(from);
    if (key === "ArrowLeft") return all[Math.max(0, index - 1)];
    if (key === "ArrowRight") return all[Math.min(all.length - 1, index + 1)];
    const row = from.closest(ROWS);
    if (!row) return null;
    const rows = [...new Set(all.map((each) => each.closest(ROWS)))];
    const next = rows[rows.indexOf(row) + (key === "ArrowUp" ? -1 : 1)];
    const peers = all.filter((each) => each.closest(ROWS) === row);
    const others = all.filter((each) => each.closest(ROWS) === next);
    return next ? others[Math.min(peers.indexOf(from), others.length - 1)] : from;
  }

  function pressed(event) {
    const { key, target, currentTarget: region } = event;
    if (!key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (!target.matches(ITEMS)) return;
    const own = target.matches("select, input[type=range]") && (key === "ArrowUp" || key === "ArrowDown");
    const next = own ? null : neighbour(items(region), target, key);
    if (!next) return;
    next.focus();
    event.preventDefault();
    event.stopPropagation(); // an arrow that moves the focus does not change the frame
  }

  function start() {
    document.addEventListener("keydown", ({ key }) => key === "Tab" && settle(), true);
    for (const region of regions) {
      region.addEventListener("keydown", pressed);
      region.addEventListener("focusin", ({ target }) => held.set(region, target));
    }
  }

  return { start };
})();
