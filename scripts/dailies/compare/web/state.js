"use strict";

/* State: what the page shows, and its encoding in the address. DATA is defined in data.js. */

const State = (() => {
  const VIEWS = ["grid", "side", "wipe", "flicker", "difference", "error", "onion", "table"];
  const GAINS = [1, 2, 4, 8, 16, 32, 64];
  const RATES = [0, 1, 2, 4];
  const FPS = [...new Set([6, 12, 15, 23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60, DATA.fps])].sort((a, b) => a - b);
  const ZOOM = [1 / 64, 128];
  const EXPOSURE = [-8, 8]; // stops
  const GAMMA = [0.2, 4];
  const CHANNELS = ["all", "red", "green", "blue", "luma", ...(DATA.pictures.some(({ alpha }) => alpha) ? ["alpha"] : [])];

  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const listeners = [];
  const values = {};

  const text = { write: String, read: (word) => word };
  const flag = { write: () => "1", read: () => true };
  const list = { write: (items) => items.map(encodeURIComponent).join(","), read: readList };
  const number = (low, high) => ({ write: short, read: (word) => clamp(+word, low, high) });
  const choice = (items) => ({
    write: String,
    read: (word) => items.find((item) => String(item) === word),
  });
  const picture = { write: (id) => Catalog.alias(id), read: (word) => Catalog.unalias(word) };
  const pictures = {
    write: (ids) => list.write(ids.map(Catalog.alias)),
    read: (word) => readList(word).map(Catalog.unalias).filter(Boolean),
  };
  const frame = {
    write: (index) => DATA.frames[index][0],
    read: (word) =>
      clamp(
        DATA.frames.findIndex(([name]) => name === word),
        0,
        Infinity,
      ),
  };
  const mark = {
    write: frame.write,
    read: (word) => {
      const index = DATA.frames.findIndex(([name]) => name === word);
      return index < 0 ? null : index;
    },
  };
  const zoom = {
    write: (value) => (value === "fit" ? value : short(value)),
    read: (word) => (word === "fit" ? word : clamp(+word, ...ZOOM)),
  };

  /* Default and codec of each value. They are read in this order, because an alias depends on blind. */
  const FIELDS = {
    blind: [0, number(0, 2 ** 31)],
    round: [0, number(0, 1e9)],
    among: [[], { ...pictures, write: (ids) => ids.map(Catalog.alias).sort().map(encodeURIComponent).join(",") }],
    shuffle: [false, flag],
    view: ["grid", choice(VIEWS)],
    frame: [0, frame],
    a: [null, picture],
    b: [null, picture],
    slot: ["b", choice(["a", "b"])],
    zoom: ["fit", zoom],
    x: [0.5, number(0, 1)],
    y: [0.5, number(0, 1)],
    wipe: [0.5, number(0, 1)],
    onion: [0.5, number(0, 1)],
    gain: [8, choice(GAINS)],
    errors: ["pair", choice(["pair", "all"])],
    rate: [calm ? 0 : 2, choice(RATES)],
    exposure: [0, number(...EXPOSURE)],
    gamma: [1, number(...GAMMA)],
    channel: ["all", choice(CHANNELS)],
    first: [null, mark],
    last: [null, mark],
    pins: [[], pictures],
    filter: ["", text],
    sort: ["", text],
    descending: [false, flag],
    differing: [true, { write: () => "0", read: (word) => word !== "0" }],
    metric: ["", text],
    fps: [DATA.fps, choice(FPS)],
  };

  function short(value) {
    return String(+value.toFixed(5));
  }

  function clamp(value, low, high) {
    return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : undefined;
  }

  function readList(word) {
    return word.split(",").filter(Boolean).map(decodeURIComponent);
  }

  /* Change values, and notify the listeners of those that differ. */
  function set(patch) {
    const changed = Object.keys(patch).filter((key) => values[key] !== patch[key]);
    for (const key of changed) values[key] = patch[key];
    if (changed.length) notify(new Set(changed));
  }

  function notify(changed) {
    for (const [keys, listener] of listeners) if (keys.some((key) => changed.has(key))) listener(changed);
    schedule();
  }

  /* Call the listener whenever one of the named values changes. */
  function on(keys, listener) {
    listeners.push([keys.split(" "), listener]);
  }

  /* All values that differ from their defaults, as the fragment of an address. */
  function hash() {
    const parts = new URLSearchParams();
    for (const [key, [defaultValue, { write }]] of Object.entries(FIELDS)) {
      const same = Array.isArray(defaultValue) ? !values[key].length : values[key] === defaultValue;
      if (!same) parts.set(key, write(values[key]));
    }
    return parts.toString();
  }

  let timer = 0;
  function schedule() {
    if (!timer)
      timer = setTimeout(() => {
        timer = 0;
        if (!Transport.playing()) write();
      }, 350);
  }

  /* Only a change of view adds an entry to the browser's history. */
  let lastView = null; // the view in the address
  function write() {
    const next = "#" + hash();
    if (next === (location.hash || "#")) return;
    if (values.view === lastView) history.replaceState(null, "", next);
    else history.pushState(null, "", next);
    lastView = values.view;
  }

  /* Read the values from the address; missing and invalid ones get their defaults. */
  function read() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const patch = {};
    for (const [key, [defaultValue, codec]] of Object.entries(FIELDS)) {
      let value;
      try {
        value = parts.has(key) ? codec.read(parts.get(key)) : undefined;
      } catch {
        value = undefined; // a broken escape sequence in a list
      }
      patch[key] = value === undefined || value === null ? defaultValue : value;
      if (key === "blind") values.blind = patch.blind;
    }
    const [a, b] = Catalog.usual();
    patch.a ??= a;
    patch.b ??= b;
    if (patch.last !== null && patch.first > patch.last) [patch.first, patch.last] = [patch.last, patch.first];
    if (patch.view === "error" && !Catalog.layers.has(Catalog.REFERENCE)) patch.view = "grid";
    const isSorted = parts.has("sort") || !parts.has("metric");
    if (!patch.blind)
      Object.assign(
        patch,
        isSorted ? Catalog.sortedBy(patch.sort, patch.descending) : Catalog.measuredBy(patch.metric, patch.sort),
      );
    Object.assign(values, patch);
    lastView = values.view;
    notify(new Set(Object.keys(FIELDS)));
  }

  /* The step of a list that is ``by`` places after the one of a value. */
  function step(steps, value, by) {
    const index = steps.findIndex((each) => each >= value);
    return steps[clamp((index < 0 ? steps.length - 1 : index) + by, 0, steps.length - 1)];
  }

  return { values, set, on, read, write, step, clamp, calm, VIEWS, GAINS, RATES, FPS, ZOOM, EXPOSURE, GAMMA, CHANNELS };
})();
