"use strict";

/* Readout: the values of a pixel, as drawn numbers.

   A page that was opened from disk may show images but not read them: getImageData throws. So the values are drawn by
   compositing alone, in 8 bits and without rounding:

     mask:    256 rows filled with the pixel, minus a ramp of the values 0 to 255, amplified and inverted: white in the
              row whose number is the pixel's value, and black in all others, for the three channels at once;
     columns: the three channels side by side, each turned white;
     sheet:   256 rows with the numbers 0 to 255 as text, multiplied by the mask: one number remains;
     fold:    the lower half is added to the upper one, eight times: the number is then in the top row.

   This takes about half a millisecond per pixel, needs no further file, and shows exactly what is on the screen. */

const Readout = (() => {
  const VALUES = 256;
  const TALL = 1.15; // rem
  const CELL = 1.9; // width of a number's cell, relative to its height
  const COLOURS = ["#ff9d94", "#8fd694", "#9db8ff"];
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
    const made = canvas.getContext("2d", { willReadFrequently: true }); // on the CPU: there are many tiny steps
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
      COLOURS.forEach((ink, channel) => {
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

  /* Fill a rectangle with a pixel of an image, or with the difference between the pixels of two. */
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
    step(columns, "luminosity", () => columns.drawImage(mask.canvas, 0, 0)); // pure blue becomes a grey of 28
    amplify(columns, 4);
  }

  /* Draw a swatch and the values of a pixel, or of the difference of two, given as {image, width, height, u, v}. */
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

  /* Pixels of a rem. Asking for it between two changes of the page makes a browser compute all styles again. */
  let rem = 0;
  addEventListener("resize", () => (rem = 0));

  /* Size a canvas to whole screen pixels. */
  function size(canvas) {
    rem ||= parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = Math.round(TALL * rem * devicePixelRatio);
    const width = height + 3 * Math.round(height * CELL);
    if (canvas.width === width && canvas.height === height) return;
    Object.assign(canvas, { width, height });
    canvas.style.width = `${width / devicePixelRatio}px`;
    canvas.style.height = `${height / devicePixelRatio}px`;
  }

  return { draw, clear, size };
})();
