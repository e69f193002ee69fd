"use strict";

/* Region: a box around the part of a frame with the largest error.

   The frame is divided into square blocks, and the one with the largest mean error is marked; blocks that are equal are
   marked together. The page cannot read pixels (see readout.js), so all of this is done by compositing:

     means:  the error map, halved until a block is a pixel, as grey values;
     peak:   the largest of them, by folding the means with "lighten" until one pixel is left;
     mask:   white for the blocks that equal the peak, black for all others.

   Eight bits cannot tell similar means apart, so the blocks that remain are compared again with amplified errors. */

const Region = (() => {
  const BLOCKS = 24; // along the longer side of a frame, at most
  const SIDE = 32; // of a mask: the next power of two, because it has a border of one block
  const ROUNDS = 3; // of comparison, each with errors amplified eight times more than in the one before
  const LARGE = 2 ** 18; // pixels: larger maps are halved before errors are amplified, which would take too long
  const PURE = { red: "#f00", green: "#0f0", blue: "#00f" };

  const inner = context(1, 1);

  function context(width, height) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    return canvas.getContext("2d", { alpha: false });
  }

  function blend(target, operation, draw) {
    target.globalCompositeOperation = operation;
    draw(target);
    target.globalCompositeOperation = "source-over";
  }

  function fill(target, operation, colour) {
    blend(target, operation, () => {
      target.fillStyle = colour;
      target.fillRect(0, 0, target.canvas.width, target.canvas.height);
    });
  }

  /* Multiply all values by a power of two; values above 255 become 255. */
  function amplify(target, doublings) {
    for (let time = 0; time < doublings; time++) blend(target, "lighter", () => target.drawImage(target.canvas, 0, 0));
  }

  /* Halve both sides several times. Each pixel becomes the mean of four. */
  function halved(source, times) {
    if (times === 0) return source;
    const { width, height } = source.canvas;
    const target = context(width / 2, height / 2);
    target.drawImage(source.canvas, 0, 0, width / 2, height / 2);
    return halved(target, times - 1);
  }

  /* Reduce a square to its largest value, which is then in the pixel at its upper left. */
  function fold(target) {
    for (let half = SIDE / 2; half >= 1; half /= 2) {
      blend(target, "lighten", () => target.drawImage(target.canvas, half, 0, half, SIDE, 0, 0, half, SIDE));
      blend(target, "lighten", () => target.drawImage(target.canvas, 0, half, SIDE, half, 0, 0, SIDE, half));
    }
  }

  /* Find the blocks with the largest mean error: a mask with a pixel per block and a black border, and the sides of a
     block as shares of the frame. If the pictures are equal, mask and border are white, so there is no box to draw. */
  function find(entries, extent, channel) {
    const [first] = entries;
    const [width, height] = first.thumbnail ? [first.width, Math.round(first.height)] : extent;
    const halvings = Math.max(0, Math.ceil(Math.log2(Math.max(width, height) / BLOCKS)));
    const block = 2 ** halvings;
    const [columns, rows] = [Math.ceil(width / block), Math.ceil(height / block)];
    const whole = context(columns * block, rows * block);
    Panel.subtract(whole, entries, ({ image, top, width: wide, height: high }) =>
      whole.drawImage(image, 0, top, wide, high, 0, 0, width, height),
    );
    if (PURE[channel]) fill(whole, "multiply", PURE[channel]);
    const excess = Math.ceil(Math.log2((columns * rows * block ** 2) / LARGE) / 2);
    const early = State.clamp(excess, 0, halvings);
    const errors = halved(whole, early);
    const [mask, means, peak] = [context(SIDE, SIDE), context(SIDE, SIDE), context(SIDE, SIDE)];
    mask.fillStyle = "#fff";
    mask.fillRect(1, 1, columns, rows);
    mask.imageSmoothingEnabled = false;
    for (let round = 0; round < ROUNDS; round++) {
      if (round) amplify(errors, 3);
      fill(means, "source-over", "#000");
      means.drawImage(halved(errors, halvings - early).canvas, 1, 1);
      fill(means, "color", "#808080"); // the luma of each block
      blend(means, "multiply", () => means.drawImage(mask.canvas, 0, 0));
      peak.drawImage(means.canvas, 0, 0);
      fold(peak);
      mask.drawImage(peak.canvas, 0, 0, 1, 1, 0, 0, SIDE, SIDE);
      blend(mask, "difference", () => mask.drawImage(means.canvas, 0, 0));
      amplify(mask, 8);
      fill(mask, "difference", "#fff");
    }
    return { mask: mask.canvas, columns, rows, across: block / width, down: block / height };
  }

  /* Draw the box of a panel of the error map. During playback there is none. */
  function show(panel) {
    const { canvas, found, place, extent } = panel;
    const target = panel.region.getContext("2d");
    Object.assign(panel.region, { width: canvas.width, height: canvas.height }); // also clears it
    if (Stage.moving() || !found.every(({ status }) => status === "ready")) return;
    const { channel } = State.values;
    const key = [...found.map(({ address, top }) => `${address} ${top}`), channel].join("\n");
    if (panel.worst?.key !== key) panel.worst = { key, ...find(found, extent, channel) };
    const { mask, columns, rows, across, down } = panel.worst;
    const [side, tall] = [across * place.width, down * place.height]; // of a block on the screen
    const [wide, high] = [columns + 2, rows + 2];
    const [left, top] = [place.left - side, place.top - tall];
    const put = (context, x, y) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(mask, 0, 0, wide, high, left + x, top + y, wide * side, high * tall);
    };
    target.beginPath();
    target.rect(place.left, place.top, Math.floor(place.width), Math.floor(place.height));
    target.clip();
    put(target, 0, 0);
    Object.assign(inner.canvas, { width: canvas.width, height: canvas.height });
    put(inner, 0, 0);
    const thick = Math.round(State.clamp(side / 12, 2 * devicePixelRatio, 6 * devicePixelRatio));
    for (const x of [-thick, thick]) for (const y of [-thick, thick]) blend(inner, "darken", () => put(inner, x, y));
    blend(target, "difference", () => target.drawImage(inner.canvas, 0, 0));
  }

  return { show };
})();
