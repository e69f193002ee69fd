"use strict";

/* App: the controls above the pictures, the keyboard shortcuts, and the start of the page. */

(() => {
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const views = [...find("views").children];
  const { values } = State;

  function showView() {
    const { view } = values;
    for (const button of views) button.setAttribute("aria-pressed", button.dataset.view === view);
    views.find((button) => button.dataset.view === view).scrollIntoView({ block: "nearest", inline: "nearest" });
    for (const control of document.querySelectorAll("[data-for]")) {
      control.hidden = !control.dataset.for.split(" ").includes(view);
    }
    find("table").hidden = view !== "table";
    find("pair").hidden = view === "table";
    find("zoom").hidden = view === "table";
  }

  function fillPair() {
    for (const slot of ["a", "b"]) {
      const models = values.blind ? Catalog.disguised() : Catalog.sorted(Catalog.shown).map((model) => model.id);
      const ids = [...Catalog.fixed, ...models];
      find(`choose-${slot}`).replaceChildren(...ids.map((id) => new Option(Catalog.name(id), Catalog.alias(id))));
    }
    updatePair();
  }

  function updatePair() {
    for (const slot of ["a", "b"]) {
      find(`choose-${slot}`).value = Catalog.alias(values[slot]);
      find(`choose-${slot}`).parentElement.classList.toggle("active", values.slot === slot);
    }
  }

  function updateOptions() {
    find("wipe").value = values.wipe;
    find("onion").value = values.onion;
    find("onion-value").textContent = `${Math.round(values.onion * 100)} %`;
    find("gain").value = values.gain;
    find("rate").value = values.rate;
    find("errors").value = values.errors;
    find("differing").checked = values.differing;
  }

  function fillOptions() {
    find("gain").append(...State.GAINS.map((gain) => new Option(`×${gain}`, gain)));
    find("rate").append(...State.RATES.map((rate) => new Option(rate ? `${rate} a second` : "with keys A, B", rate)));
    const error = views.find((button) => button.dataset.view === "error");
    error.disabled = !Catalog.layers.has(Catalog.REFERENCE);
    if (error.disabled) error.title = "An error map needs reference frames";
    find("full").hidden = !document.fullscreenEnabled;
    find("title").textContent = DATA.title;
    find("sequence").textContent = DATA.choice ? `${DATA.sequence} (${DATA.choice})` : DATA.sequence;
    document.title = `${DATA.sequence} · ${DATA.title} · Dailies`;
  }

  function swap() {
    State.set({ a: values.b, b: values.a });
  }

  function activate(slot) {
    State.set({ slot });
    Stage.pace();
  }

  function choose(slot, number) {
    const id = Catalog.listed()[number - 1];
    if (id) State.set({ [slot]: id });
  }

  /* The keys [ and ]: decrease or increase the setting of the view. */
  function adjust(by) {
    const { view, gain, wipe, onion, rate } = values;
    if (view === "difference" || view === "error") State.set({ gain: State.step(State.GAINS, gain, by) });
    if (view === "flicker") State.set({ rate: State.step(State.RATES, rate, by) });
    if (view === "wipe") State.set({ wipe: State.clamp(wipe + by * 0.05, 0, 1) });
    if (view === "onion") State.set({ onion: State.clamp(onion + by * 0.1, 0, 1) });
  }

  function turnTo(view) {
    if (!views.find((button) => button.dataset.view === view).disabled) State.set({ view });
  }

  /* The key E: the error map of A and B, or, pressed there, of all models. */
  function turnToError() {
    if (values.view === "error") State.set({ errors: values.errors === "pair" ? "all" : "pair" });
    else turnTo("error");
  }

  function turnToFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (values.view !== "table") find("work").requestFullscreen();
  }

  const KEYS = {
    ArrowLeft: (event) => Transport.go(values.frame - (event.shiftKey ? 10 : 1)),
    ArrowRight: (event) => Transport.go(values.frame + (event.shiftKey ? 10 : 1)),
    Home: () => Transport.go(0),
    End: () => Transport.go(Transport.last),
    " ": () => Transport.toggle(),
    a: () => activate("a"),
    b: () => activate("b"),
    A: () => Blind.vote("a"),
    B: () => Blind.vote("b"),
    N: () => Blind.vote("tie"),
    x: swap,
    p: () => {
      if (!values.blind) Stage.choose("pin", values[values.slot]);
    },
    i: () => State.set({ [values.slot]: Catalog.SOURCE }),
    r: () => {
      if (Catalog.fixed.includes(Catalog.REFERENCE)) State.set({ [values.slot]: Catalog.REFERENCE });
    },
    g: () => turnTo("grid"),
    s: () => turnTo("side"),
    w: () => turnTo("wipe"),
    f: () => turnTo("flicker"),
    d: () => turnTo("difference"),
    e: turnToError,
    o: () => turnTo("onion"),
    t: () => turnTo("table"),
    "[": () => adjust(-1),
    "]": () => adjust(1),
    "+": () => Hand.zoom("in"),
    "=": () => Hand.zoom("in"),
    "-": () => Hand.zoom("out"),
    0: () => Hand.zoom("fit"),
    z: () => Hand.zoom("one"),
    h: () => Hand.look(-1, 0),
    j: () => Hand.look(0, 1),
    k: () => Hand.look(0, -1),
    l: () => Hand.look(1, 0),
    v: () => Look.adjust("exposure", 1),
    V: () => Look.adjust("exposure", -1),
    y: () => Look.adjust("gamma", 1),
    Y: () => Look.adjust("gamma", -1),
    c: () => Look.turn(1),
    C: () => Look.turn(-1),
    q: () => Look.reset(),
    F: turnToFullScreen,
    ",": () => Transport.loop("first"),
    ".": () => Transport.loop("last"),
    u: () => Transport.loop(null),
    n: () => Graph.worst(),
    m: () => Graph.apart(),
    "/": () => {
      showModels(true);
      find("filter").focus();
    },
    "?": () => find("help").showModal(),
    Escape: () => {
      if (document.fullscreenElement) document.exitFullscreen();
      showModels(false);
    },
  };

  /* Whether an element needs a key for itself. */
  function keeps(target, key) {
    if (target.closest("dialog[open]")) return true;
    if (target.matches("input[type=search]")) return key !== "Escape";
    if (target.matches("select")) return true;
    if (target.matches("input[type=range]")) return key.startsWith("Arrow") || key === "Home" || key === "End";
    if (target.closest("#table") && (key.startsWith("Arrow") || key === "Home" || key === "End")) return true;
    return (key === " " || key === "Enter") && target.closest("button, summary, a, input") !== null;
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || keeps(event.target, event.key)) return;
    // Caps Lock is not Shift: only Shift votes
    const key = /^[a-z]$/i.test(event.key) ? event.key[event.shiftKey ? "toUpperCase" : "toLowerCase"]() : event.key;
    const digit = /^Digit([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(event.key) ? event.key : undefined);
    if (digit) {
      const other = values.slot === "a" ? "b" : "a";
      choose(event.shiftKey ? other : values.slot, +digit);
    } else if (Object.hasOwn(KEYS, key)) {
      KEYS[key](event);
    } else {
      return;
    }
    event.preventDefault();
  }

  function showModels(on) {
    root.classList.toggle("models-open", on);
    find("open-models").setAttribute("aria-expanded", on);
    if (!on && document.activeElement === find("filter")) find("filter").blur();
  }

  function listen() {
    for (const button of views) button.addEventListener("click", () => turnTo(button.dataset.view));
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => Hand.zoom(button.dataset.zoom));
    }
    find("swap").addEventListener("click", swap);
    for (const slot of ["a", "b"]) {
      find(`choose-${slot}`).addEventListener("change", ({ target }) => {
        State.set({ [slot]: Catalog.unalias(target.value), slot });
      });
    }
    for (const [id, event] of Object.entries({ wipe: "input", onion: "input", gain: "change", rate: "change" })) {
      find(id).addEventListener(event, ({ target }) => State.set({ [id]: +target.value }));
    }
    find("errors").addEventListener("change", ({ target }) => State.set({ errors: target.value }));
    find("full").addEventListener("click", turnToFullScreen);
    find("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address holds the state
      (values.view === "table" ? find("table") : find("stage")).focus();
    });
    find("differing").addEventListener("change", (event) => State.set({ differing: event.target.checked }));
    find("open-help").addEventListener("click", () => find("help").showModal());
    find("open-models").addEventListener("click", () => showModels(!root.classList.contains("models-open")));
    find("stage").addEventListener("pointerdown", () => showModels(false));
    document.addEventListener("keydown", pressed);
    // a control that was used with the pointer loses focus, so that the space bar plays and the arrows step
    document.addEventListener("click", (event) => {
      if (event.detail && document.activeElement.matches("button:not(dialog *)")) document.activeElement.blur();
    });
    let pointed = false;
    document.addEventListener("pointerdown", () => (pointed = true), true);
    document.addEventListener("keydown", () => (pointed = false), true);
    document.addEventListener("change", ({ target }) => {
      if (pointed) target.blur();
    });
    addEventListener("hashchange", State.read);
  }

  fillOptions();
  State.on("view", showView);
  State.on("blind sort descending", fillPair);
  State.on("a b slot", updatePair);
  State.on("wipe onion gain rate errors differing", updateOptions);
  Transport.start();
  Stage.start();
  Hand.start();
  Tips.start();
  Verdict.start();
  Models.start();
  Graph.start();
  Blind.start();
  Look.start();
  Focus.start();
  listen();
  State.read();
  find("broken").remove(); // while it is there, each change of a text makes a browser style the whole page
})();
