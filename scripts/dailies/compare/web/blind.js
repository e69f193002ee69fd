"use strict";

/* Blind: a blind test, which hides all names and asks for votes on pairs that are drawn anew each time. */

const Blind = (() => {
  const { element } = Panel;
  const Z = 1.959964; // of a 95 % interval
  const STORAGE_KEY = "dailies-votes:" + DATA.id;
  const ballot = document.getElementById("ballot");
  const round = document.getElementById("round");
  const toggle = document.getElementById("blind");
  const result = document.getElementById("result");
  const shuffle = document.getElementById("shuffle");
  const draw = document.getElementById("draw");
  const tied = Catalog.shown.filter((model) => model.place?.verdict === "tie").map((model) => model.id);
  const FAIR = ["side", "wipe", "flicker"]; // views that show two pictures as they are
  let chosen = []; // the models that were pinned or filtered when the test began
  let before = {}; // what the page showed then
  let votes = storedVotes();

  /* Votes survive a reload if the browser allows the page to store data. */
  function storedVotes() {
    try {
      const stored = JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? [];
      return stored.filter((vote) => vote.frame_digest); // earlier pages did not store what a vote needs
    } catch {
      return [];
    }
  }

  function store() {
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(votes));
    } catch {
      // storage is disabled: the votes are lost when the page is closed
    }
  }

  /* A random number from 0 up to a limit; a link cannot repeat it. */
  function random(limit) {
    return Math.floor((crypto.getRandomValues(new Uint32Array(1))[0] / 2 ** 32) * limit);
  }

  function drawn(items) {
    return items[random(items.length)];
  }

  /* The models that pairs are drawn from. */
  function cast() {
    const { among } = State.values;
    return among.length > 1 ? among : Catalog.shown.map((model) => model.id);
  }

  function pairs() {
    return cast().flatMap((one, index, ids) => ids.slice(index + 1).map((other) => [one, other]));
  }

  function key(one, other) {
    return JSON.stringify([one, other].sort());
  }

  /* Draw what to vote on next: one of the pairs with the fewest votes, its sides, new disguises for all models and, if
     wanted, the frame. */
  function next() {
    const { a, b, shuffle } = State.values;
    const all = pairs();
    const counts = new Map(all.map((pair) => [key(...pair), 0]));
    for (const { a: one, b: other } of votes) {
      const place = key(one.model, other.model);
      if (counts.has(place)) counts.set(place, counts.get(place) + 1);
    }
    const fewest = Math.min(...counts.values());
    const due = all.filter((pair) => counts.get(key(...pair)) === fewest);
    const others = due.filter((pair) => key(...pair) !== key(a, b));
    const pair = drawn(others.length ? others : due);
    const [left, right] = random(2) ? pair : [pair[1], pair[0]];
    const state = { a: left, b: right, slot: "a", blind: 1 + random(2 ** 31 - 1) };
    return shuffle ? { ...state, frame: frameFor(pair) } : state;
  }

  /* A random frame of the loop that both models have. */
  function frameFor(pair) {
    const [first, last] = Transport.bounds();
    const frames = DATA.frames.map((_, frame) => frame).slice(first, last + 1);
    const whole = frames.filter((frame) => pair.every((id) => !Catalog.layers.get(id).missing.has(frame)));
    return drawn(whole.length ? whole : frames);
  }

  function enter() {
    Transport.stop();
    const { view, a, b, slot, pins, filter, sort, descending, metric } = State.values;
    before = { view, a, b, slot, pins, filter, sort, descending, metric };
    const pinned = Catalog.shown.filter((model) => pins.includes(model.id));
    const listed = pinned.length > 1 ? pinned : Catalog.filtered(Catalog.shown);
    chosen = isPart(listed) ? listed.map((model) => model.id) : [];
    const among = chosen.length ? chosen : isPart(tied) ? tied : [];
    State.set({ among, round: 0, pins: [], filter: "", sort: "", descending: false });
    State.set({ view: FAIR.includes(view) ? view : "side", ...next() });
    State.write(); // removes the models' names from the address
  }

  function isPart(models) {
    return models.length > 1 && models.length < Catalog.shown.length;
  }

  function leave() {
    State.set({ blind: 0, round: 0, among: [], ...before });
    before = {};
    if (votes.length) {
      tally();
      result.showModal();
    }
  }

  /* The pools to draw pairs from, as [name, description, models]; an empty list means all models. */
  function pools() {
    const { among } = State.values;
    if (among.length && !same(among, tied)) chosen = among; // of a link
    return [
      ["chosen", `the ${chosen.length} chosen`, chosen],
      ["tied", `the ${tied.length} that tie`, isPart(tied) ? tied : []],
      ["all", `all ${Catalog.shown.length}`, []],
    ].filter(([name, , models]) => name === "all" || models.length);
  }

  function same(some, others) {
    return some.length === others.length && some.every((id) => others.includes(id));
  }

  function redraw() {
    const [, , among] = pools().find(([name]) => name === draw.value);
    State.set({ among, round: 0 });
    State.set(next());
  }

  function showPools() {
    const { among } = State.values;
    const all = pools();
    draw.replaceChildren(...all.map(([name, description]) => new Option(description, name)));
    draw.value = all.find(([, , models]) => same(models, among))[0];
    draw.parentElement.hidden = all.length < 2;
  }

  function discard() {
    votes = [];
    store();
  }

  function vote(choice) {
    const { blind, round: number, a, b, frame, view } = State.values;
    if (!blind || !Catalog.models.has(a) || !Catalog.models.has(b) || a === b) return;
    const [name, , , digest] = DATA.frames[frame];
    votes.push({
      id: fresh(),
      a: named(a),
      b: named(b),
      winner: choice,
      frame: name,
      frame_digest: digest,
      view,
      time: new Date().toISOString(),
    });
    store();
    State.set({ round: number + 1, ...next() });
  }

  /* A random id: 32 hexadecimal digits. */
  function fresh() {
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function named(id) {
    const { run_id, artifact } = Catalog.models.get(id);
    return { model: id, run_id, artifact };
  }

  /* The interval of a share of votes by Wilson (1927), Journal of the American Statistical Association 22, 209–212. */
  function interval(won, lost) {
    const count = won + lost;
    const share = won / count;
    const middle = (share + Z ** 2 / (2 * count)) / (1 + Z ** 2 / count);
    const half = (Z / (1 + Z ** 2 / count)) * Math.sqrt((share * (1 - share)) / count + Z ** 2 / (4 * count ** 2));
    return [Math.max(0, middle - half), Math.min(1, middle + half)];
  }

  /* How many more votes would move the interval off 50 %, if their shares stay as they are; Infinity if they are even. */
  function missing(won, lost) {
    const count = won + lost;
    const distance = won / count - 0.5;
    return Math.max(0, Math.floor(Z ** 2 / (4 * distance ** 2)) + 1 - count);
  }

  /* Votes for, against and without a preference, for each key of a list of [key, side] of a vote. */
  function count(keysOf) {
    const table = new Map();
    for (const vote of votes) {
      for (const [place, side] of keysOf(vote)) {
        if (!table.has(place)) table.set(place, { won: 0, lost: 0, tied: 0 });
        const kind = vote.winner === "tie" ? "tied" : vote.winner === side ? "won" : "lost";
        table.get(place)[kind] += 1;
      }
    }
    return [...table].sort(([, one], [, other]) => other.won - other.lost - (one.won - one.lost));
  }

  /* A cell with the labels of a model, or of a pair of them. */
  function names(...models) {
    const cell = element("th");
    cell.scope = "row";
    models.forEach((model, index) => {
      const { name, params } = Catalog.models.has(model) ? Catalog.label(model) : { name: model, params: "" };
      const line = element("span", "voted", index ? "against " : "");
      line.append(element("bdi", "", name), ...(params ? [" ", element("small", "params", params)] : []));
      cell.append(line);
    });
    return cell;
  }

  /* The cells of a line of the tally: the share with its interval, what would decide, and the counts. */
  function figures({ won, lost, tied }) {
    const share = () => {
      const [low, high] = interval(won, lost).map((each) => Math.round(100 * each));
      return `${Math.round((100 * won) / (won + lost))} % (${low} to ${high} %)`;
    };
    const verdict = () => {
      const more = missing(won, lost);
      if (more === 0) return "decided";
      return Number.isFinite(more) ? `about ${more} more` : "even so far";
    };
    return [...(won + lost ? [share(), verdict()] : ["–", "–"]), won, lost, tied];
  }

  function table(title, headings, lines) {
    const made = element("table");
    made.createCaption().textContent = title;
    const head = made.createTHead().insertRow();
    for (const heading of headings) head.append(Object.assign(element("th", "", heading), { scope: "col" }));
    const body = made.createTBody();
    for (const [heading, counts] of lines) {
      const line = body.insertRow();
      line.append(heading);
      for (const figure of figures(counts)) line.insertCell().textContent = figure;
    }
    return made;
  }

  function tally() {
    const models = count(({ a, b }) => [
      [a.model, "a"],
      [b.model, "b"],
    ]);
    const sides = ({ a, b }) => (a.model < b.model ? [a.model, b.model, "a"] : [b.model, a.model, "b"]);
    const both = count((vote) => {
      const [one, other, side] = sides(vote);
      return [[JSON.stringify([one, other]), side]];
    });
    const headings = ["Share", "To decide", "Better", "Worse", "No difference"];
    document.getElementById("tally").replaceChildren(
      table(
        "Each model against all others",
        ["Model", ...headings],
        models.map(([model, counts]) => [names(model), counts]),
      ),
      table(
        "Each pair: the first model against the second",
        ["Pair", ...headings],
        both.map(([pair, counts]) => [names(...JSON.parse(pair)), counts]),
      ),
    );
  }

  function save() {
    const { title: experiment, sequence, id: page } = DATA;
    const report = { format: "dailies votes 2", page, experiment, sequence, votes };
    const text = JSON.stringify(report, null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" }));
    link.download = "votes.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  function show() {
    const { blind, round: number } = State.values;
    document.documentElement.classList.toggle("blind", Boolean(blind));
    toggle.setAttribute("aria-pressed", Boolean(blind));
    ballot.hidden = !blind;
    document.querySelector('[data-view="table"]').disabled = Boolean(blind);
    shuffle.checked = State.values.shuffle;
    if (!blind) return;
    showPools();
    const count = pairs().length;
    const counted = votes.length === 1 ? "1 vote" : `${votes.length} votes`;
    const again = number < count ? "" : "Every pair was shown. ";
    round.textContent = `${again}Pair ${(number % count) + 1} of ${count}. ${counted} so far.`;
  }

  function start() {
    toggle.disabled = Catalog.shown.length < 2;
    toggle.addEventListener("click", () => (State.values.blind ? leave() : enter()));
    document.getElementById("reveal").addEventListener("click", leave);
    document.getElementById("export").addEventListener("click", save);
    document.getElementById("export-again").addEventListener("click", save);
    document.getElementById("discard").addEventListener("click", discard);
    for (const button of ballot.querySelectorAll("[data-vote]")) {
      button.addEventListener("click", () => vote(button.dataset.vote));
    }
    draw.addEventListener("change", redraw);
    shuffle.addEventListener("change", () => State.set({ shuffle: shuffle.checked }));
    State.on("blind round shuffle among", show);
  }

  return { start, vote };
})();
