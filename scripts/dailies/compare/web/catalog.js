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

  /* Groups of values, in the order in which one of two equal columns is kept. */
  const GROUPS = { place: "places", mean: "means", metric: "metrics", param: "params", fact: "facts" };
  const SEEN = "seen_in_training";
  const tellsSeen = DATA.models.some((model) => model.trained.length);
  const held = new Map(DATA.models.map((model) => [model.id, { ...model, places: placesOf(model), means: meansOf(model) }]));
  const keys = Object.entries(GROUPS).flatMap(([group, field]) =>
    [...new Set([...held.values()].flatMap((model) => Object.keys(model[field])))].map((key) => `${group}:${key}`),
  );
  const alike = new Map();
  for (const key of keys) alike.set(spelled(key), [...(alike.get(spelled(key)) ?? []), key]);
  const ranking = DATA.ranking && `mean:${DATA.ranking.metric}`; // the column of the metric that ranks
  const columns = keys
    .filter((key) => {
      const others = alike.get(spelled(key));
      return !others.slice(0, others.indexOf(key)).some((other) => repeats(key, other));
    })
    .sort((one, other) => priority(one) - priority(other));
  const metrics = new Map(DATA.metrics.map((metric) => [metric.key, metric]));
  const ranked = DATA.ranking && metrics.get(DATA.ranking.metric); // the metric that ranks
  const defaultMetric = (ranked ?? DATA.metrics[0])?.name; // the metric that is shown unless another one is chosen

  /* The first columns are those that a phone shows beside the name. */
  function priority(key) {
    return key === "place:rank" ? 0 : key === ranking ? 1 : group(key) === "place" ? 2 : 3;
  }

  /* The group of a column in the table. The metric that ranks is in that of the ranking. */
  function group(key) {
    return key === ranking ? "place" : key.slice(0, key.indexOf(":"));
  }

  function placesOf({ place }) {
    if (!place) return {};
    const found = { rank: place.rank, verdict: place.verdict, to_first: place.to_first?.difference ?? 0 };
    return place.to_source ? { ...found, to_source: place.to_source.difference } : found;
  }

  function meansOf(model) {
    return tellsSeen ? { ...model.means, [SEEN]: model.trained.length } : model.means;
  }

  /* The name of a column, however it is written: train_loss and train/loss are the same. */
  function spelled(key) {
    return plain(key).toLowerCase().replace(/[^a-z0-9]+/g, " ");
  }

  /* Whether two columns have the same values. */
  function repeats(key, other) {
    const same = (one, two) => one === two || (numeric(one) !== null && numeric(one) === numeric(two));
    return DATA.models.every((model) => same(value(model, key), value(model, other)));
  }

  /* The default A and B: the source and the first model. */
  function usual() {
    const ids = [...fixed.slice(0, 1), ...byRank(shown).map((model) => model.id)];
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

  /* What tells a picture from the others: {name, params}. */
  function label(id) {
    if (id === SOURCE) return { name: "Source", params: "" };
    if (id === REFERENCE) return { name: "Reference", params: "" };
    if (State.values.blind) return { name: `Model ${disguised().indexOf(id) + 1}`, params: "" };
    return models.get(id).label;
  }

  /* The lines of captions in a grid: params of many characters need a second line there. */
  const longest = Math.max(0, ...DATA.models.map((model) => model.label.params.length));
  document.documentElement.dataset.lines = longest === 0 ? 1 : longest <= 26 ? 2 : 3;

  /* The same in a few words, for menus and sentences. */
  function name(id) {
    return State.values.blind || !models.has(id) ? label(id).name : models.get(id).short;
  }

  /* Whether a model was trained on a frame; always false in a blind test. */
  function seen(id, frame) {
    return !State.values.blind && Boolean(trained.get(id)?.has(frame));
  }

  /* Whether a model was knocked out, so that only some of its frames are rendered; always false in a blind test. */
  function isOut(id) {
    return !State.values.blind && Boolean(models.get(id)?.knocked_out);
  }

  function value(model, key) {
    const found = held.get(model.id)[GROUPS[key.slice(0, key.indexOf(":"))]];
    return found && Object.hasOwn(found, plain(key)) ? found[plain(key)] : null;
  }

  /* A key without its group, as in MLflow. */
  function plain(key) {
    return key.slice(key.indexOf(":") + 1);
  }

  const TITLES = { "place:to_first": "to the first", "place:to_source": "to the source" };

  function title(key) {
    if (key.startsWith("mean:") && metrics.has(plain(key))) return metrics.get(plain(key)).name;
    return TITLES[key] ?? (key.startsWith("param:") ? plain(key) : plain(key).replaceAll("_", " "));
  }

  const LOWER = /(^|[^a-z])(loss|error|err|mse|rmse|mae|l1|l2|lpips|flip|fid|dists|niqe|perplexity)([^a-z]|$)/i;
  const HIGHER = /(^|[^a-z])(psnr|ssim|ms_ssim|msssim|accuracy|acc|iou|f1|score|vmaf)([^a-z]|$)/i;

  /* Which values are better: 1 for high ones, -1 for low ones, 0 if that is unknown. Of MLflow's, the name decides. */
  function direction(key) {
    const metric = key.startsWith("mean:") ? metrics.get(plain(key)) : undefined;
    if (metric) return metric.higher_is_better ? 1 : -1;
    if (key.startsWith("place:")) return key.startsWith("place:to_") ? 1 : -1;
    if (key.startsWith("param:")) return 0;
    const [low, high] = [LOWER.test(plain(key)), HIGHER.test(plain(key))];
    return low === high ? 0 : high ? 1 : -1;
  }

  const HELP = {
    "place:rank": "The place in the leaderboard. Models that tie have an order, too, but it may be chance.",
    "place:verdict":
      "best: the first and alone. tie: the first, or so close that the frames cannot tell. worse: all others. " +
      "knocked out: worse in the first round, so that only its frames are rendered.",
    "place:to_first": "How far the model is behind the first, with a 95 % interval that holds for all models at once.",
    "place:to_source": "How much better the model is than the source itself, that is, than doing nothing.",
    [`mean:${SEEN}`]: "Frames that the model was trained on. Results on those mean little, so the means exclude them.",
    "fact:fps": "Frames per second while rendering, on the machine that rendered.",
    "fact:seconds": "Seconds of rendering.",
    "fact:startup_seconds": "Seconds before the first frame: to import torch, to load and to probe the network.",
    "fact:tiled": "Whether frames were rendered in overlapping tiles, because a whole one needs too much memory.",
    "fact:precision": "The number format in which the network computed.",
  };

  /* A sentence or two about a column, for the tooltip of its heading. */
  function help(key) {
    const metric = key.startsWith("mean:") ? metrics.get(plain(key)) : undefined;
    const better = { 1: "Higher is better", [-1]: "Lower is better" }[direction(key)];
    const guess = better && /^(metric|fact):/.test(key) ? ", judging by its name" : "";
    const about = metric ? metric.help : (HELP[key] ?? ORIGIN[key.slice(0, key.indexOf(":"))]);
    const shows = better && key !== "place:rank" && key !== "place:verdict";
    return [about, shows ? `${better}${guess}.` : ""].filter(Boolean).join(" ");
  }

  const ORIGIN = {
    mean: "Measured by Dailies, the mean over the frames that decide.",
    metric: "Logged by the training run in MLflow; its last value.",
    param: "A parameter of the training run, logged in MLflow.",
    fact: "Noted by Dailies when it rendered the model.",
  };

  /* The best value of a column among the models; null if no direction is known or if all are equal. */
  function best(key) {
    const sign = key.startsWith("place:") ? 0 : direction(key);
    const values = sign ? shown.map((model) => numeric(value(model, key))).filter((each) => each !== null) : [];
    if (new Set(values).size < 2) return null;
    return sign > 0 ? Math.max(...values) : Math.min(...values);
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

  /* In the order of the ranking; models without a rank come last, in MLflow's order. */
  function byRank(list) {
    const rank = (model) => model.place?.rank ?? Infinity;
    return [...list].sort((one, other) => (rank(one) === rank(other) ? 0 : rank(one) - rank(other)));
  }

  const AS_LOGGED = "mlflow";

  /* The name of the metric that an order of the models is about; undefined if it is about none. */
  function metricOf(sort) {
    if (sort.startsWith("mean:")) return metrics.get(plain(sort))?.name;
    return ranked && (!sort || sort.startsWith("place:")) ? ranked.name : undefined;
  }

  /* What changes if models are sorted by a column, by default the best first. There is one chosen metric: the list is
     sorted by it, and captions and graph show it. */
  function sortedBy(sort, descending = columns.includes(sort) && direction(sort) > 0) {
    const metric = metricOf(sort);
    return { sort, descending, ...(metric ? { metric: metric === defaultMetric ? "" : metric } : {}) };
  }

  /* What changes if a metric is chosen by its name. An order that is about no metric, such as MLflow's, remains. */
  function measuredBy(name, sort = State.values.sort) {
    const metric = name === defaultMetric ? "" : name;
    const key = DATA.metrics.find((each) => each.name === name)?.key;
    const current = metricOf(sort);
    if (current === undefined || current === name || !columns.includes(`mean:${key}`)) return { metric };
    return name === ranked?.name ? { metric, sort: "", descending: false } : sortedBy(`mean:${key}`);
  }

  function sorted(list) {
    const { sort, descending, blind } = State.values;
    if (blind) return list;
    if (!sort || sort === AS_LOGGED) {
      const ordered = sort ? list : byRank(list);
      return descending ? [...ordered].reverse() : ordered;
    }
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
      const named = [model.name, model.label.name, model.label.params, model.id, model.run_id, model.status];
      haystacks.set(model, [...named, ...pairs].join("\n").toLowerCase());
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
    columns,
    ranking,
    ranked,
    defaultMetric,
    group,
    metrics,
    AS_LOGGED,
    metricOf,
    sortedBy,
    measuredBy,
    usual,
    disguised,
    alias,
    unalias,
    label,
    name,
    seen,
    isOut,
    value,
    plain,
    title,
    direction,
    help,
    best,
    brief,
    numeric,
    sorted,
    filtered,
    listed,
    shuffled,
  };
})();
