"use strict";

/* Readout: the values of a pixel, drawn.

   A page that was opened from disk may show images and must not read them: getImageData refuses. So the values are
   not read but drawn, with nothing but compositing, in 8 bits and without rounding:

     mask:    256 rows filled with the pixel, minus a ramp of the values 0 to 255, amplified and inverted: white in the
              one row whose number is the pixel's value, black in all others; for the three channels at once;
     columns: the three channels side by side, each made white;
     sheet:   256 rows that hold the written numbers 0 to 255, times the mask: one number is left;
     fold:    the lower half added to the upper one, eight times: that number is in the top row.

   It costs no file and about half a millisecond a pixel, and it shows what is on the screen. */

const Readout = (() => {
  const VALUES = 256;
  const TALL = 1.15; // rem
  const CELL = 1.9; // width of a number's cell, by its height
  const INKS = ["#ff9d94", "#8fd694", "#9db8ff"];
  const mask = context(3, VALUES);
  const columns = context(3, VALUES);
  const ramp = context(1, VALUES);
  let sheet = null;
  let numbers = null;

  for (let value = 0; value < VALUES; value++) {
    ramp.fillStyle = `rgb(${value},${value},${value})`;
    ramp.fillRect(0, value, 1, 1);
  }

  function context(width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const made = canvas.getContext("2d", { willReadFrequently: true }); // kept off the GPU: many tiny steps
    made.imageSmoothingEnabled = false;
    return made;
  }

  function write(cell) {
    if (sheet?.cell.width === cell.width && sheet.cell.height === cell.height) return;
    sheet = context(3 * cell.width, VALUES * cell.height);
    sheet.cell = cell;
    sheet.fillRect(0, 0, sheet.canvas.width, sheet.canvas.height);
    const family = getComputedStyle(document.body).getPropertyValue("--figures");
    sheet.font = `500 ${Math.round(cell.height * 0.82)}px ${family}`;
    sheet.textAlign = "right";
    sheet.textBaseline = "middle";
    for (let value = 0; value < VALUES; value++) {
      INKS.forEach((ink, channel) => {
        sheet.fillStyle = ink;
        sheet.fillText(value, (channel + 1) * cell.width - cell.height * 0.2, (value + 0.53) * cell.height);
      });
    }
    numbers = context(sheet.canvas.width, sheet.canvas.height);
  }

  function step(target, operation, draw) {
    target.globalCompositeOperation = operation;
    draw(target);
    target.globalCompositeOperation = "source-over";
  }

  function amplify(target, doublings) {
    for (let time = 0; time < doublings; time++) step(target, "lighter", () => target.drawImage(target.canvas, 0, 0));
  }

  /* Fill a rectangle with one pixel of an image, or with how far those of two images are apart. */
  function fill(target, [first, second], [x, y, width, height]) {
    const put = ({ image, width: wide, height: high, u, v }) =>
      target.drawImage(image, Math.floor(u * wide), Math.floor(v * high), 1, 1, x, y, width, height);
    put(first);
    if (second) step(target, "difference", () => put(second));
  }

  function select(pixels) {
    fill(mask, pixels, [0, 0, 3, VALUES]);
    step(mask, "difference", () => mask.drawImage(ramp.canvas, 0, 0, 3, VALUES));
    amplify(mask, 8);
    step(mask, "difference", () => {
      mask.fillStyle = "#fff";
      mask.fillRect(0, 0, 3, VALUES);
    });
    ["#f00", "#0f0", "#00f"].forEach((channel, column) =>
      step(mask, "multiply", () => {
        mask.fillStyle = channel;
        mask.fillRect(column, 0, 1, VALUES);
      }),
    );
    columns.fillStyle = "#808080";
    columns.fillRect(0, 0, 3, VALUES);
    step(columns, "luminosity", () => columns.drawImage(mask.canvas, 0, 0)); // pure blue becomes the grey 28
    amplify(columns, 4);
  }

  /* Draw a swatch and the numbers of a pixel, or of the difference of two, on a canvas: {image, width, height, u, v} each. */
  function draw(canvas, pixels) {
    size(canvas);
    const { height } = canvas;
    const cell = { width: Math.round(height * CELL), height };
    const target = canvas.getContext("2d");
    target.imageSmoothingEnabled = false;
    write(cell);
    select(pixels);
    const { canvas: written } = sheet;
    numbers.drawImage(columns.canvas, 0, 0, 3, VALUES, 0, 0, written.width, written.height);
    step(numbers, "multiply", () => numbers.drawImage(written, 0, 0));
    for (let half = VALUES / 2; half >= 1; half /= 2) {
      const tall = half * height;
      step(numbers, "lighter", () =>
        numbers.drawImage(numbers.canvas, 0, tall, written.width, tall, 0, 0, written.width, tall),
      );
    }
    target.drawImage(numbers.canvas, 0, 0, written.width, height, height, 0, written.width, height);
    fill(target, pixels, [0, 0, height, height]);
    canvas.classList.remove("blank");
  }

  function clear(canvas) {
    canvas.classList.add("blank");
  }

  /* Make a canvas large enough, to the pixel of the screen. */
  function size(canvas) {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = Math.round(TALL * rem * devicePixelRatio);
    const width = height + 3 * Math.round(height * CELL);
    if (canvas.width === width && canvas.height === height) return;
    Object.assign(canvas, { width, height });
    canvas.style.width = `${width / devicePixelRatio}px`;
    canvas.style.height = `${height / devicePixelRatio}px`;
  }

  return { draw, clear, size };
})();
