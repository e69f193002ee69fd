"use strict";

/* Catalog: the layers and models of the page, their names, and how models are filtered and sorted. */

const Catalog = (() => {
  const SOURCE = "@source",
    REFERENCE = "@reference";
  const models = new Map(DATA.models.map((model) => [model.id, model]));
  const layers = new Map(DATA.pictures.map((layer) => [layer.id, { ...layer, missing: new Set(layer.missing) }]));
  const shown = DATA.models.filter((model) => layers.has(model.id));
  const failed = DATA.models.filter((model) => !layers.has(model.id));
  const fixed = [SOURCE, REFERENCE].filter((id) => layers.has(id));
  const scale = Math.max(1, ...shown.map((model) => model.scale));

  const trained = new Map(DATA.models.map((model) => [model.id, new Set(model.trained)]));

  const GROUPS = { fact: "facts", mean: "means", metric: "metrics", param: "params" };
  const keys = Object.entries(GROUPS).flatMap(([group, field]) =>
    [...new Set(DATA.models.flatMap((model) => Object.keys(model[field])))].map((key) => `${group}:${key}`),
  );
  const names = new Map(DATA.models.map((model) => [model.id, uniqueName(model)]));

  /* The default A and B: the source and the first model. */
  function usual() {
    const ids = [...fixed.slice(0, 1), ...shown.map((model) => model.id)];
    return [ids[0], ids[1] ?? ids[0]];
  }

  /* The models that have frames, in the shuffled order of a blind test. */
  function disguised() {
    if (disguised.seed !== State.values.blind) {
      disguised.seed = State.values.blind;
      disguised.order = shuffled(
        shown.map((model) => model.id),
        disguised.seed,
      );
    }
    return disguised.order;
  }

  function alias(id) {
    return State.values.blind && models.has(id) ? `*${disguised().indexOf(id) + 1}` : id;
  }

  function unalias(word) {
    const id = State.values.blind && word.startsWith("*") ? disguised()[word.slice(1) - 1] : word;
    return layers.has(id) ? id : null;
  }

  function name(id) {
    if (id === SOURCE) return "Source";
    if (id === REFERENCE) return "Reference";
    if (State.values.blind) return `Model ${disguised().indexOf(id) + 1}`;
    return names.get(id);
  }

  /* A model's name. If several models have the same name, the run's id is appended; if they are of one run, the folder
     name is used instead. */
  function uniqueName(model) {
    const namesakes = DATA.models.filter((other) => other.name === model.name);
    if (namesakes.length === 1) return model.name;
    const isOnlyOfRun = namesakes.filter((other) => other.run_id === model.run_id).length === 1;
    return isOnlyOfRun ? `${model.name} ${model.run_id.slice(0, 8)}` : model.id;
  }

  /* Whether a model was trained on a frame; always false in a blind test. */
  function seen(id, frame) {
    return !State.values.blind && Boolean(trained.get(id)?.has(frame));
  }

  function value(model, key) {
    const held = model[GROUPS[key.slice(0, key.indexOf(":"))]];
    return held && Object.hasOwn(held, plain(key)) ? held[plain(key)] : null;
  }

  /* A key without its group, as in MLflow. */
  function plain(key) {
    return key.slice(key.indexOf(":") + 1);
  }

  function title(key) {
    return plain(key).replaceAll("_", " ");
  }

  function numeric(word) {
    if (typeof word === "number") return word;
    return typeof word === "string" && word.trim() !== "" && Number.isFinite(+word) ? +word : null;
  }

  /* A value as a short text; numbers have five digits. */
  function brief(word) {
    if (word === null || word === undefined) return "–";
    const number = typeof word === "number" || String(word).length > 8 ? numeric(word) : null;
    return number === null || Number.isInteger(number) ? String(word) : String(+number.toPrecision(5));
  }

  /* Compare two values for sorting: numbers before words, and missing values last in either direction. */
  function compare(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    const [left, right] = [numeric(one), numeric(other)];
    if (left !== null && right !== null) return sign * (left - right);
    if (left !== null || right !== null) return sign * ((left === null) - (right === null));
    return sign * String(one).localeCompare(String(other), undefined, { numeric: true });
  }

  function sorted(list) {
    const { sort, descending } = State.values;
    if (!sort || State.values.blind) return descending && !State.values.blind ? [...list].reverse() : list;
    const sign = descending ? -1 : 1;
    return list
      .map((model, index) => [model, index])
      .sort(([one, i], [other, j]) => compare(value(one, sort), value(other, sort), sign) || i - j)
      .map(([model]) => model);
  }

  const haystacks = new Map();
  function haystack(model) {
    if (!haystacks.has(model)) {
      const known = keys.filter((key) => value(model, key) !== null);
      const pairs = known.map((key) => `${plain(key)}=${value(model, key)}`);
      haystacks.set(model, [model.name, model.id, model.run_id, model.status, ...pairs].join("\n").toLowerCase());
    }
    return haystacks.get(model);
  }

  const CONDITION = /^([^<>=!]+)(<=|>=|!=|=|<|>)(.*)$/;
  const MEETS = {
    "=": (order) => order === 0,
    "!=": (order) => order !== 0,
    "<": (order) => order < 0,
    ">": (order) => order > 0,
    "<=": (order) => order <= 0,
    ">=": (order) => order >= 0,
  };

  /* Return one word of the filter as a predicate of a model. */
  function test(word) {
    const [, left, operator, right] = CONDITION.exec(word) || [];
    const named = left && keysNamed(left);
    if (!named?.length) return (model) => haystack(model).includes(word);
    const wanted = numeric(right);
    return (model) =>
      named.some((key) => {
        const held = value(model, key);
        if (held === null || right === "") return right === "";
        if (wanted !== null && numeric(held) !== null) return MEETS[operator](Math.sign(numeric(held) - wanted));
        const text = String(held).toLowerCase();
        if (operator === "=" || operator === "!=") return text.includes(right) === (operator === "=");
        return wanted === null && MEETS[operator](text.localeCompare(right));
      });
  }

  /* The keys that a word of the filter refers to: those with that name, else those whose name ends with it. */
  function keysNamed(word) {
    const exact = keys.filter((key) => plain(key).toLowerCase() === word);
    const ends = (name) => name.endsWith(word) && /[./_-]/.test(name.at(-word.length - 1));
    return exact.length ? exact : keys.filter((key) => ends(plain(key).toLowerCase()));
  }

  function filtered(list) {
    if (State.values.blind) return list;
    const tests = (State.values.filter.toLowerCase().match(/\S+/g) || []).map(test);
    return list.filter((model) => tests.every((passes) => passes(model)));
  }

  /* The ids of the listed models: pinned ones first, then in the chosen order. */
  function listed() {
    const list = State.values.blind ? disguised().map((id) => models.get(id)) : sorted(filtered(shown));
    const pinned = new Set(State.values.pins);
    return [...list.filter((model) => pinned.has(model.id)), ...list.filter((model) => !pinned.has(model.id))].map(
      (model) => model.id,
    );
  }

  /* Shuffle by a seed, so that a link to a blind test shows the same order (mulberry32, Fisher–Yates). */
  function shuffled(items, seed) {
    const result = [...items];
    let state = seed >>> 0;
    for (let last = result.length - 1; last > 0; last--) {
      state = (state + 0x6d2b79f5) >>> 0;
      let bits = Math.imul(state ^ (state >>> 15), state | 1);
      bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
      const other = ((bits ^ (bits >>> 14)) >>> 0) % (last + 1);
      [result[last], result[other]] = [result[other], result[last]];
    }
    return result;
  }

  return {
    SOURCE,
    REFERENCE,
    models,
    layers,
    shown,
    failed,
    fixed,
    scale,
    keys,
    usual,
    disguised,
    alias,
    unalias,
    name,
    seen,
    value,
    title,
    brief,
    numeric,
    sorted,
    filtered,
    listed,
    shuffled,
  };
})();
