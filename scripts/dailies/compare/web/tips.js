"use strict";

/* Tips: a line of help for any element with data-help, shown on hover and on focus. */

const Tips = (() => {
  const MARGIN = 8; // CSS pixels to the edges of the window
  const tip = document.getElementById("tip");
  let owner = null;

  /* Give an element a line of help. */
  function explain(element, text) {
    if (text) element.dataset.help = text;
    return element;
  }

  function show(target) {
    const next = target instanceof Element ? target.closest("[data-help]") : null;
    if (next === owner) return;
    hide();
    if (!next) return;
    owner = next;
    tip.textContent = owner.dataset.help;
    tip.hidden = false;
    owner.setAttribute("aria-describedby", tip.id);
    place(owner.getBoundingClientRect());
  }

  /* Show elements beside a box of the window until ``hide`` is called. */
  function showAt(box, ...children) {
    tip.replaceChildren(...children);
    tip.hidden = false;
    place(box);
  }

  /* Below the box if there is room, else above it. */
  function place(box) {
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = Math.min(box.left, innerWidth - width - MARGIN);
    const below = box.bottom + 4 + height < innerHeight - MARGIN;
    tip.style.left = `${Math.max(MARGIN, left)}px`;
    tip.style.top = `${below ? box.bottom + 4 : Math.max(MARGIN, box.top - 4 - height)}px`;
  }

  function hide() {
    owner?.removeAttribute("aria-describedby");
    owner = null;
    tip.hidden = true;
  }

  function start() {
    document.addEventListener("pointerover", ({ target, pointerType }) => {
      if (pointerType !== "touch") show(target);
    });
    document.addEventListener("focusin", ({ target }) => {
      if (target.matches(":focus-visible")) show(target);
    });
    document.addEventListener("focusout", hide);
    document.addEventListener("scroll", () => owner && place(owner.getBoundingClientRect()), true); // as when the focus moves to a hidden column
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") hide();
    });
  }

  return { start, explain, showAt, hide };
})();
