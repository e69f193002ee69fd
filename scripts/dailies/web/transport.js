"use strict";

/* Transport: the frame that is shown, and time. */

const Transport = (() => {
  const scrub = document.getElementById("scrub");
  const play = document.getElementById("play");
  const fps = document.getElementById("fps");
  const rate = document.getElementById("rate-now");
  const last = DATA.frames.length - 1;
  let began = null; // {time, frame} of the clock while playing
  let seen = null; // the frame that was on the screen last
  let times = [];

  function playing() {
    return began !== null;
  }

  function toggle() {
    if (playing()) stop();
    else if (last > 0) {
      began = { time: performance.now(), frame: State.values.frame };
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
  }

  /* Go on in real time, by whole frames, as soon as the last one asked for is on the screen. */
  function tick(now) {
    if (!playing()) return;
    if (seen === State.values.frame) {
      const passed = Math.floor(((now - began.time) / 1000) * State.values.fps);
      const next = (began.frame + passed) % (last + 1);
      if (passed > 0 && next !== State.values.frame) State.set({ frame: next });
    }
    requestAnimationFrame(tick);
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
    if (playing()) began = { time: performance.now(), frame: State.clamp(frame, 0, last) };
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
      if (playing()) began = { time: performance.now(), frame: State.values.frame };
    });
    State.on("frame fps", tell);
  }

  return { start, toggle, stop, playing, shown, go, last };
})();
