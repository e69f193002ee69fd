"use strict";

/* Transport: the current frame, and playback. */

const Transport = (() => {
  const scrub = document.getElementById("scrub");
  const play = document.getElementById("play");
  const fps = document.getElementById("fps");
  const rate = document.getElementById("rate-now");
  const loopButton = document.getElementById("loop");
  const range = document.getElementById("loop-range");
  const last = DATA.frames.length - 1;
  const MAX_STRIDE = 24; // frames
  const PATIENCE = 500; // ms without a late frame after which the stride is halved
  let began = null; // {time, frame} at which the clock started; null while paused
  let reached = 0; // the frame requested last, by that clock; it counts on beyond the end of the loop
  let stride = 1; // frames per step: more than one if the browser cannot show all in time
  let waited = 0; // screen refreshes since then without that frame
  let late = 0; // consecutive frames that were late
  let changed = 0; // time at which the stride last changed or a frame was last late
  let seen = null; // the frame last shown in full
  let times = [];

  function playing() {
    return began !== null;
  }

  function toggle() {
    if (playing()) stop();
    else if (last > 0) {
      stride = 1;
      begin(State.values.frame);
      times = [];
      requestAnimationFrame(tick);
    }
    announce();
  }

  function stop() {
    began = null;
    rate.textContent = "";
    State.write();
    announce();
    Stage.showValues();
    Stage.hurry(false);
  }

  function announce() {
    play.setAttribute("aria-label", playing() ? "Pause" : "Play");
    play.classList.toggle("on", playing());
    document.getElementById("where").setAttribute("aria-live", playing() ? "off" : "polite"); // not at 24 fps
  }

  /* The first and the last frame that playback shows. */
  function bounds() {
    return [State.values.first ?? 0, State.values.last ?? last];
  }

  /* The frame of a count that goes on beyond the end of the loop. */
  function wrapped(count) {
    const [start, end] = bounds();
    return start + ((count - start) % (end - start + 1));
  }

  function begin(frame) {
    const [start, end] = bounds();
    reached = frame < start || frame > end ? start : frame;
    if (reached !== frame) State.set({ frame: reached });
    began = { time: performance.now(), frame: reached };
    late = waited = 0;
    changed = began.time;
  }

  /* Advance in real time once the requested frame is on the screen, skipping frames whose time has passed.
     If frames are late repeatedly, the stride grows, so that the frames loaded ahead are those that will be shown. */
  function tick(now) {
    if (!playing()) return;
    if (State.values.frame !== wrapped(reached)) begin(State.values.frame); // the user went to another frame
    const due = began.frame + Math.floor(((now - began.time) / 1000) * State.values.fps);
    if (seen !== State.values.frame) {
      waited += 1;
    } else if (due >= reached + stride) {
      pace(now, due - reached);
      reached = due;
      State.set({ frame: wrapped(due) });
    }
    requestAnimationFrame(tick);
  }

  /* Adapt the stride to whether the last frame was on time. */
  function pace(now, passed) {
    late = waited > 1 ? late + 1 : 0;
    waited = 0;
    if (late > 1) [stride, late, changed] = [Math.min(MAX_STRIDE, passed, 2 * stride), 0, now];
    else if (!late && stride > 1 && now - changed > PATIENCE) [stride, changed] = [Math.floor(stride / 2), now];
    if (late) changed = now;
  }

  /* The frames that playback will show next. */
  function coming(count) {
    return Array.from({ length: count }, (_, step) => wrapped(reached + (step + 1) * stride));
  }

  /* Set the first or the last frame of the loop to the current one; null plays the whole sequence again. */
  function loop(end, frame = State.values.frame) {
    if (last === 0) return;
    const { first: start, last: stop } = State.values;
    if (end === null) State.set({ first: null, last: null });
    if (end === "first") State.set({ first: frame, last: stop !== null && stop < frame ? null : stop });
    if (end === "last") State.set({ last: frame, first: start !== null && start > frame ? null : start });
    if (playing()) begin(State.values.frame);
  }

  /* Which end of the loop the button sets next; null if both are set. */
  function open() {
    const { first: start, last: stop } = State.values;
    return start === null ? "first" : stop === null ? "last" : null;
  }

  const LOOP = {
    first: ["Loop from", "Play only from this frame (,)"],
    last: ["Loop to", "Play only to this frame (.)"],
    null: ["No loop", "Play the whole sequence again (U)"],
  };

  function showLoop() {
    const { first: start, last: stop } = State.values;
    [loopButton.textContent, loopButton.title] = LOOP[open()];
    range.hidden = start === null && stop === null;
    const [from, to] = bounds().map((frame) => (last ? frame / last : 0));
    range.style.setProperty("--from", from);
    range.style.setProperty("--to", to);
    range.title = `Playback repeats ${DATA.frames[bounds()[0]][0]} to ${DATA.frames[bounds()[1]][0]}`;
  }

  /* Drag an end of the loop along the scrubber. */
  function drag(event) {
    const { end } = event.target.dataset;
    if (!end || !(event.buttons & 1)) return;
    const { left, width } = range.getBoundingClientRect();
    const frame = Math.round(State.clamp((event.clientX - left) / width, 0, 1) * last);
    const [start, stop] = bounds();
    State.set({ [end]: end === "first" ? Math.min(frame, stop) : Math.max(frame, start) });
  }

  /* Called by the stage with the frame on the screen, and whether all of its pictures are shown. */
  function shown(frame, whole) {
    if (!whole || seen === frame) return;
    seen = frame;
    if (!playing()) return;
    const now = performance.now();
    times = [...times.filter((time) => now - time < 2000), now];
    if (times.length > 2) rate.textContent = `${((times.length - 1) / ((now - times[0]) / 1000)).toFixed(1)} fps`;
  }

  function go(frame) {
    State.set({ frame: State.clamp(frame, 0, last) });
  }

  function update() {
    const { frame, fps: chosen } = State.values;
    const [name] = DATA.frames[frame];
    scrub.value = frame;
    scrub.setAttribute("aria-valuetext", `${name}, ${frame + 1} of ${last + 1}`);
    document.getElementById("frame-name").textContent = name;
    document.getElementById("frame-number").textContent = `${frame + 1} / ${last + 1}`;
    fps.value = chosen;
    scrub.style.setProperty("--share", last ? frame / last : 0);
  }

  function start() {
    scrub.max = last;
    scrub.disabled = play.disabled = loopButton.disabled = last === 0;
    fps.append(...State.FPS.map((each) => new Option(`${each} fps`, each)));
    scrub.addEventListener("input", () => {
      Stage.hurry(true);
      go(+scrub.value);
    });
    scrub.addEventListener("change", () => Stage.hurry(false));
    play.addEventListener("click", toggle);
    document.getElementById("back").addEventListener("click", () => go(State.values.frame - 1));
    document.getElementById("next").addEventListener("click", () => go(State.values.frame + 1));
    fps.addEventListener("change", () => {
      State.set({ fps: +fps.value });
      if (playing()) begin(State.values.frame);
    });
    loopButton.addEventListener("click", () => loop(open()));
    range.addEventListener("pointerdown", (event) => event.target.dataset.end && event.target.setPointerCapture(event.pointerId));
    range.addEventListener("pointermove", drag);
    State.on("frame fps", update);
    State.on("first last", showLoop);
  }

  return { start, toggle, stop, playing, coming, shown, go, loop, bounds, last };
})();
