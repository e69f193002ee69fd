"use strict";

/* Look: how the pictures are shown: exposure, gamma, a single channel, and the colours of the error map.

   A page that was opened from disk cannot read the pixels of its images, so all of this is done by SVG filters. A
   filter is a table of 256 values per channel, so it is exact; it is applied only while something differs from the
   pictures themselves. */

const Look = (() => {
  const VALUES = 256;
  const LUMA = "0.2126 0.7152 0.0722"; // Rec. 709
  const ROWS = { red: "1 0 0", green: "0 1 0", blue: "0 0 1", luma: LUMA };
  const NAMES = { all: "RGB", red: "Red", green: "Green", blue: "Blue", luma: "Luma", alpha: "Alpha" };
  const COLOURS = ["red", "green", "blue"];
  const STEPS = { exposure: 0.5, gamma: 0.1 };

  /* Inferno by Nathaniel Smith and Stéfan van der Walt (CC0): 256 colours whose lightness rises evenly. */
  const INFERNO = [
    "00000401000501010601010802010a02020c02020e03021004031204031405041706041907051b08051d09061f0a0722",
    "0b07240c08260d08290e092b10092d110a30120a32140b34150b37160b39180c3c190c3e1b0c411c0c431e0c451f0c48",
    "210c4a230c4c240c4f260c51280b53290b552b0b572d0b592f0a5b310a5c320a5e340a5f3609613809623909633b0964",
    "3d09653e0966400a67420a68440a68450a69470b6a490b6a4a0c6b4c0c6b4d0d6c4f0d6c510e6c520e6d540f6d550f6d",
    "57106e59106e5a116e5c126e5d126e5f136e61136e62146e64156e65156e67166e69166e6a176e6c186e6d186e6f196e",
    "71196e721a6e741a6e751b6e771c6d781c6d7a1d6d7c1d6d7d1e6d7f1e6c801f6c82206c84206b85216b87216b88226a",
    "8a226a8c23698d23698f24699025689225689326679526679727669827669a28659b29649d29649f2a63a02a63a22b62",
    "a32c61a52c60a62d60a82e5fa92e5eab2f5ead305dae305cb0315bb1325ab3325ab43359b63458b73557b93556ba3655",
    "bc3754bd3853bf3952c03a51c13a50c33b4fc43c4ec63d4dc73e4cc83f4bca404acb4149cc4248ce4347cf4446d04545",
    "d24644d34743d44842d54a41d74b3fd84c3ed94d3dda4e3cdb503bdd513ade5238df5337e05536e15635e25734e35933",
    "e45a31e55c30e65d2fe75e2ee8602de9612bea632aeb6429eb6628ec6726ed6925ee6a24ef6c23ef6e21f06f20f1711f",
    "f1731df2741cf3761bf37819f47918f57b17f57d15f67e14f68013f78212f78410f8850ff8870ef8890cf98b0bf98c0a",
    "f98e09fa9008fa9207fa9407fb9606fb9706fb9906fb9b06fb9d07fc9f07fca108fca309fca50afca60cfca80dfcaa0f",
    "fcac11fcae12fcb014fcb216fcb418fbb61afbb81dfbba1ffbbc21fbbe23fac026fac228fac42afac62df9c72ff9c932",
    "f9cb35f8cd37f8cf3af7d13df7d340f6d543f6d746f5d949f5db4cf4dd4ff4df53f4e156f3e35af3e55df2e661f2e865",
    "f2ea69f1ec6df1ed71f1ef75f1f179f2f27df2f482f3f586f3f68af4f88ef5f992f6fa96f8fb9af9fc9dfafda1fcffa4",
  ]
    .join("")
    .match(/../g)
    .map((digits) => parseInt(digits, 16));

  const find = (id) => document.getElementById(id);
  const row = find("look");
  const note = find("altered");
  const legend = find("legend");
  const scale = legend.querySelector("canvas");
  let opened = false; // whether the user opened the controls

  function altered() {
    const { exposure, gamma, channel } = State.values;
    return exposure !== 0 || gamma !== 1 || channel !== "all";
  }

  /* The CSS filter of a panel's canvas. */
  function filter(mode, gain) {
    if (mode === "error") return "url(#error-map)";
    const amplified = mode === "difference" && gain !== 1 ? `brightness(${gain})` : "";
    return `${amplified} ${altered() ? "url(#look-filter)" : ""}`.trim();
  }

  /* Set the tables of a filter to three functions of a value from 0 to 255. */
  function tabulate(root, functions) {
    ["R", "G", "B"].forEach((name, index) => {
      const bytes = Array.from({ length: VALUES }, (_, value) => Math.round(functions[index](value)));
      // a quarter more than the value, because browsers either round or cut off
      const entries = bytes.map((byte) => ((Math.min(255, Math.max(0, byte)) + 0.25) / 255).toFixed(6));
      root.querySelector(`feFunc${name}`).setAttribute("tableValues", entries.join(" "));
    });
  }

  /* The matrix that shows one channel as grey, or all channels as they are. The pictures of alpha are grey already. */
  function matrix(channel) {
    const names = Object.hasOwn(ROWS, channel) ? Array(3).fill(channel) : COLOURS;
    return `${names.map((name) => `${ROWS[name]} 0 0`).join(" ")} 0 0 0 1 0`;
  }

  /* Exposure is a factor in linear light, for pictures in sRGB; gamma is applied to the result. */
  function tone(value) {
    const { exposure, gamma } = State.values;
    const level = value / 255;
    const linear = level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
    const light = Math.min(1, linear * 2 ** exposure);
    const encoded = light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055;
    return 255 * encoded ** (1 / gamma);
  }

  function update() {
    const { exposure, gamma, channel, view } = State.values;
    const changed = altered();
    if (changed) {
      find("look-filter").querySelector("feColorMatrix").setAttribute("values", matrix(channel));
      tabulate(find("look-filter"), [tone, tone, tone]);
    }
    find("exposure").value = exposure;
    find("gamma").value = gamma;
    find("channel").value = channel;
    find("exposure-value").textContent = `${signed(exposure)} ${Math.abs(exposure) === 1 ? "stop" : "stops"}`;
    find("gamma-value").textContent = String(+gamma.toFixed(2));
    find("plain").disabled = !changed;
    for (const id of ["exposure", "gamma"]) find(id).parentElement.hidden = view === "error";
    row.hidden = view === "table" || !(changed || opened);
    find("open-look").setAttribute("aria-expanded", !row.hidden);
    find("open-look").classList.toggle("on", changed);
    const text = notice();
    if (note.textContent !== text) note.textContent = text;
    showLegend(view === "error");
  }

  function signed(value) {
    return value > 0 ? `+${value}` : String(value).replace("-", "−");
  }

  /* What differs from the pictures themselves, as a sentence. */
  function notice() {
    const { exposure, gamma, channel, view } = State.values;
    const toned = [
      exposure !== 0 && `exposure ${signed(exposure)}`,
      gamma !== 1 && `gamma ${+gamma.toFixed(2)}`,
    ].filter(Boolean);
    const single = channel !== "all" ? [channel === "luma" ? "luma only" : `${channel} only`] : [];
    if (view === "error") {
      const unused = toned.length ? "The error map ignores exposure and gamma." : "";
      return [single.length ? `Errors of ${single[0]}.` : "", unused].filter(Boolean).join(" ");
    }
    const all = [...toned, ...single];
    return all.length ? `Not shown as rendered: ${all.join(", ")}.` : "";
  }

  /* The error map: the largest difference of the channels, amplified by the gain, as a colour. */
  function showLegend(on) {
    legend.hidden = !on;
    if (!on) return;
    const { gain, channel } = State.values;
    const root = find("error-map");
    const matrices = channel === "all" ? COLOURS : Array(3).fill(channel);
    root.querySelectorAll("feColorMatrix").forEach((each, index) => {
      each.setAttribute("values", matrix(matrices[index]));
    });
    tabulate(
      root,
      [0, 1, 2].map((offset) => (value) => INFERNO[3 * Math.min(255, value * gain) + offset]),
    );
    const kind = { all: "largest of R, G, B", luma: "weighted as luma" }[channel] ?? `${channel} only`;
    find("legend-kind").textContent = `|picture − reference|, ${kind}; code values of 255, gain ×${gain}. Box: the largest mean error`;
    const step = 64 / gain;
    const ticks = [0, 1, 2, 3].map((number) => tick(number * step, String(number * step), gain));
    find("legend-ticks").replaceChildren(...ticks, tick(255 / gain, `≥ ${+(255 / gain).toPrecision(3)}`, gain));
    draw();
  }

  function tick(value, text, gain) {
    const made = document.createElement("span");
    made.textContent = text;
    made.style.left = `${(100 * value * gain) / 255}%`;
    return made;
  }

  function draw() {
    const context = scale.getContext("2d");
    for (let value = 0; value < VALUES; value++) {
      context.fillStyle = `rgb(${INFERNO.slice(3 * value, 3 * value + 3)})`;
      context.fillRect(value, 0, 1, 1);
    }
  }

  /* Change exposure or gamma by one step of the keyboard. */
  function adjust(key, by) {
    if (State.values.view === "error") return;
    const bounds = { exposure: State.EXPOSURE, gamma: State.GAMMA }[key];
    State.set({ [key]: State.clamp(+(State.values[key] + by * STEPS[key]).toFixed(2), ...bounds) });
  }

  function turn(by) {
    const { CHANNELS } = State;
    const index = CHANNELS.indexOf(State.values.channel) + by;
    State.set({ channel: CHANNELS[(index + CHANNELS.length) % CHANNELS.length] });
  }

  function reset() {
    State.set({ exposure: 0, gamma: 1, channel: "all" });
  }

  function start() {
    find("channel").append(...State.CHANNELS.map((channel) => new Option(NAMES[channel], channel)));
    for (const id of ["exposure", "gamma"]) {
      find(id).addEventListener("input", ({ target }) => State.set({ [id]: +target.value }));
    }
    find("channel").addEventListener("change", ({ target }) => State.set({ channel: target.value }));
    find("plain").addEventListener("click", reset);
    find("open-look").addEventListener("click", () => {
      opened = row.hidden;
      if (!opened) reset();
      update();
    });
    State.on("exposure gamma channel gain view", update);
  }

  return { start, filter, adjust, turn, reset };
})();
