"use strict";

/* Transport: the frame that is shown, and time. */

const Transport = (() => {
  const scrub = document.getElementById("scrub");
  const play = document.getElementById("play");
  const fps = document.getElementById("fps");
  const rate = document.getElementById("rate-now");
  const last = DATA.frames.length - 1;
  const MOST = 24; // frames that one step may take
  const PATIENCE = 500; // ms without a late frame before steps are made shorter again
  let began = null; // {time, frame} of the clock while playing
  let reached = 0; // the frame that was asked for last, by that clock: it goes on beyond the last frame
  let stride = 1; // how many frames a step takes: more than one where not all can be shown in time
  let waited = 0; // how often it was looked for, in vain, since
  let late = 0; // frames in a row that were not there in time
  let changed = 0; // when the stride was last changed, or a frame was last late
  let seen = null; // the frame that was on the screen last
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
    Stage.hurry(false);
  }

  function announce() {
    play.setAttribute("aria-label", playing() ? "Pause" : "Play");
    play.classList.toggle("on", playing());
    document.getElementById("where").setAttribute("aria-live", playing() ? "off" : "polite"); // not 24 times a second
  }

  function begin(frame) {
    began = { time: performance.now(), frame };
    reached = frame;
    late = waited = 0;
    changed = began.time;
  }

  /* Go on in real time, as soon as the last frame asked for is on the screen. What its time has passed is left out; where
     that happens again for want of pictures, steps become longer, so that what is loaded ahead is what will be shown. */
  function tick(now) {
    if (!playing()) return;
    if (State.values.frame !== reached % (last + 1)) begin(State.values.frame); // whoever went there, it goes on there
    const due = began.frame + Math.floor(((now - began.time) / 1000) * State.values.fps);
    if (seen !== State.values.frame) {
      waited += 1;
    } else if (due >= reached + stride) {
      pace(now, due - reached);
      reached = due;
      State.set({ frame: due % (last + 1) });
    }
    requestAnimationFrame(tick);
  }

  /* Choose how many frames a step takes, by whether the last frame was there when its time had come. */
  function pace(now, passed) {
    late = waited > 1 ? late + 1 : 0;
    waited = 0;
    if (late > 1) stride = Math.min(MOST, passed, 2 * stride);
    else if (!late && stride > 1 && now - changed > PATIENCE) [stride, changed] = [Math.floor(stride / 2), now];
    if (late) changed = now;
  }

  /* The frames that are shown next while it plays. */
  function coming(count) {
    return Array.from({ length: count }, (_, step) => (reached + (step + 1) * stride) % (last + 1));
  }

  /* Hear from the stage which frame is on the screen, and whether it is whole. */
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

  function tell() {
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
    scrub.disabled = play.disabled = last === 0;
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
    State.on("frame fps", tell);
  }

  return { start, toggle, stop, playing, coming, shown, go, last };
})();
