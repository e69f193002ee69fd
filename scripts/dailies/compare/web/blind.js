"use strict";

/* Blind: a blind test, which hides all names, shuffles the models and asks for a vote on each pair. */

const Blind = (() => {
  const { element } = Panel;
  const STORAGE_KEY = "dailies-votes:" + DATA.id;
  const ballot = document.getElementById("ballot");
  const round = document.getElementById("round");
  const toggle = document.getElementById("blind");
  const result = document.getElementById("result");
  let votes = storedVotes();

  /* Votes survive a reload if the browser allows the page to store data. */
  function storedVotes() {
    try {
      return JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? [];
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

  /* Every pair of models once, in shuffled order; which of the two is A is random, too. */
  function pairs() {
    const ids = Catalog.disguised();
    const all = ids.flatMap((one, index) => ids.slice(index + 1).map((other) => [one, other]));
    const seed = State.values.blind;
    const sides = Catalog.shuffled(
      all.map((_, index) => index % 2),
      seed + 1,
    );
    return Catalog.shuffled(all, seed).map((pair, index) => (sides[index] ? pair : [pair[1], pair[0]]));
  }

  function enter() {
    Transport.stop();
    const seed = 1 + Math.floor(Math.random() * (2 ** 31 - 1));
    State.set({ blind: seed, round: 0, pins: [], filter: "", sort: "", descending: false });
    const { view } = State.values;
    State.set({ view: view === "grid" || view === "table" ? "side" : view, ...pairOf(0), slot: "a" });
    State.write(); // removes the models' names from the address
  }

  function leave() {
    State.set({ blind: 0, round: 0 });
    if (votes.length) {
      tally();
      result.showModal();
    }
  }

  function discard() {
    votes = [];
    store();
  }

  function pairOf(number) {
    const all = pairs();
    const [a, b] = all[number % all.length];
    return { a, b };
  }

  function vote(choice) {
    const { blind, round: number, a, b, frame, view } = State.values;
    if (!blind || !Catalog.models.has(a) || !Catalog.models.has(b) || a === b) return;
    votes.push({
      a: named(a),
      b: named(b),
      better: choice,
      frame: DATA.frames[frame][0],
      view,
      seed: blind,
      round: number + 1,
      time: new Date().toISOString(),
    });
    store();
    State.set({ round: number + 1, ...pairOf(number + 1), slot: "a" });
  }

  function named(id) {
    return { model: id, run_id: Catalog.models.get(id).run_id };
  }

  /* Wins, losses and ties of each model, sorted by wins minus losses. */
  function standings() {
    const table = new Map();
    const line = ({ model }) => {
      if (!table.has(model)) table.set(model, { model, better: 0, worse: 0, tie: 0 });
      return table.get(model);
    };
    for (const { a, b, better } of votes) {
      const [one, other] = [line(a), line(b)];
      if (better === "tie") {
        one.tie += 1;
        other.tie += 1;
        continue;
      }
      const [winner, loser] = better === "a" ? [one, other] : [other, one];
      winner.better += 1;
      loser.worse += 1;
    }
    return [...table.values()].sort((one, other) => other.better - other.worse - (one.better - one.worse));
  }

  function tally() {
    const table = element("table");
    const head = table.createTHead().insertRow();
    for (const title of ["Model", "Better", "Worse", "No difference"]) head.append(element("th", "", title));
    const body = table.createTBody();
    for (const { model, better, worse, tie } of standings()) {
      const line = body.insertRow();
      const name = element("bdi", "", Catalog.models.has(model) ? Catalog.name(model) : model);
      line.insertCell().append(name);
      for (const count of [better, worse, tie]) line.insertCell().textContent = count;
    }
    document.getElementById("tally").replaceChildren(table);
  }

  function save() {
    const { title: experiment, sequence, id: page } = DATA;
    const report = { format: "dailies votes 1", experiment, sequence, page, votes, standings: standings() };
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
    if (!blind) return;
    const count = (Catalog.shown.length * (Catalog.shown.length - 1)) / 2;
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
    State.on("blind round", show);
  }

  return { start, vote };
})();
