"use strict";

/* Panel: one picture, or a comparison of two, with a caption above. */

const Panel = (() => {
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /* The small buttons that show a picture as A or B, or pin it. */
  function chips(id) {
    const group = element("span", "chips");
    for (const [act, text, title] of [
      ["a", "A", "Show as A"],
      ["b", "B", "Show as B"],
      ["pin", "", "Pin: pinned models lead the list, and Side by side shows them"],
    ]) {
      const button = element("button", `chip ${act}`, text);
      button.type = "button";
      button.dataset.act = act;
      button.dataset.id = id;
      group.append(Tips.explain(button, title));
    }
    return group;
  }

  /* Update the state of all small buttons inside an element. */
  function markChips(root) {
    for (const button of root.querySelectorAll(".chip")) {
      const { act, id } = button.dataset;
      const on = act === "pin" ? State.values.pins.includes(id) : State.values[act] === id;
      const name = Catalog.name(id);
      button.setAttribute("aria-pressed", on);
      button.setAttribute("aria-label", act === "pin" ? `Pin ${name}` : `Show ${name} as ${act.toUpperCase()}`);
    }
  }

  function fullName(id) {
    const model = Catalog.models.get(id);
    return model ? `${model.name}\n${model.id}` : "";
  }

  const DESCRIPTIONS = {
    single: (one) => one,
    wipe: (one, other) => `${one} left, ${other} right`,
    flicker: (one, other) => `${one} and ${other} in turn`,
    onion: (one, other) => `${other} over ${one}`,
    difference: (one, other) => `Difference of ${one} and ${other}`,
    error: (one, other) => `Error of ${one} against ${other}`,
  };

  /* How each mode draws its pictures. */
  const PAINT = {
    single: (panel, [entry]) => panel.put(panel.context, entry),
    flicker: (panel, entries) => panel.put(panel.context, entries[panel.looks === "a" ? 0 : 1]),
    wipe: (panel, entries) => {
      const line = Math.round(panel.looks * panel.canvas.width);
      panel.clipped(0, line, () => panel.put(panel.context, entries[0]));
      panel.clipped(line, panel.canvas.width, () => panel.put(panel.context, entries[1]));
    },
    onion: (panel, entries) => {
      panel.put(panel.context, entries[0]);
      panel.context.globalAlpha = panel.looks;
      panel.put(panel.context, entries[1]);
      panel.context.globalAlpha = 1;
    },
    difference: (panel, entries) => {
      const direct = panel.place.scale >= 1 || entries.some(({ thumbnail }) => thumbnail);
      if (direct) subtract(panel.context, entries, (entry) => panel.put(panel.context, entry));
      else panel.put(panel.context, apart(entries, panel.extent));
    },
    error: (panel, entries) => PAINT.difference(panel, entries),
  };

  function subtract(context, [one, other], put) {
    put(one);
    context.globalCompositeOperation = "difference";
    put(other);
    context.globalCompositeOperation = "source-over";
  }

  /* The difference of two pictures at full size. It is reduced afterwards, because reduced pictures differ less. */
  const scratch = document.createElement("canvas").getContext("2d");
  function apart(entries, [width, height]) {
    Object.assign(scratch.canvas, { width, height });
    scratch.imageSmoothingEnabled = false;
    subtract(scratch, entries, ({ image }) => scratch.drawImage(image, 0, 0, width, height));
    return { image: scratch.canvas, top: 0, width, height };
  }

  class Panel {
    constructor(mode, ids) {
      this.mode = mode;
      this.ids = ids;
      this.near = false; // whether it is on the screen or near it
      this.place = null; // the rectangle of the frame on the canvas, in screen pixels
      this.found = null; // the pictures on the canvas
      this.drawn = "";
      this.root = element("figure", this.pair || mode === "single" ? `panel ${mode}` : `panel ${mode} single`);
      this.root.dataset.ids = ids.join(" ");
      this.box = element("div", "box");
      this.box.panel = this;
      this.canvas = element("canvas", "picture");
      this.canvas.setAttribute("role", "img");
      this.context = this.canvas.getContext("2d");
      this.marker = element("i", "marker");
      this.message = element("p", "message");
      this.box.append(this.canvas, this.marker, this.message);
      if (mode === "wipe") this.box.append(element("i", "line"));
      if (mode === "error") {
        this.region = element("canvas", "region");
        this.region.setAttribute("aria-hidden", "true");
        this.canvas.after(this.region);
      }
      const named = this.pair ? ids : ids.slice(0, 1);
      this.labels = named.map((id, index) => this.label(id, this.pair ? "ab"[index] : ""));
      if (mode === "difference") this.labels.splice(1, 0, this.label(null, "apart"));
      const caption = element("figcaption", this.pair ? "pair" : "");
      caption.append(...this.labels.map((label) => label.root));
      this.root.append(caption, this.box);
    }

    /* Whether it compares A and B. */
    get pair() {
      return this.mode !== "single" && this.mode !== "error";
    }

    label(id, slot) {
      const root = element("div", `label ${slot}`);
      const label = {
        id,
        slot,
        root,
        digit: element("span", "digit"),
        name: element("span", "name"),
        badges: element("span", "badges"),
        figure: element("span", "figure"),
        readout: element("canvas", "readout blank"),
      };
      if (slot === "apart") root.append(element("span", "tag", "|A − B|"));
      else if (slot) root.append(element("b", `tag ${slot}`, slot.toUpperCase()));
      root.append(label.digit, label.name, label.badges, label.figure);
      if (!slot) root.append(chips(id));
      root.append(label.readout);
      return label;
    }

    /* Update the caption; ``digits`` maps ids to the keys that choose them. */
    caption(digits) {
      const { a, b, slot, blind } = State.values;
      for (const label of this.labels) {
        Readout.size(label.readout);
        if (!label.id) continue;
        const { name, params } = Catalog.label(label.id);
        label.name.replaceChildren(element("bdi", params ? "" : "alone", name), ...(params ? [element("small", "params", params)] : []));
        label.name.title = blind ? "" : fullName(label.id);
        label.digit.textContent = this.pair ? "" : (digits.get(label.id) ?? "");
        label.root.classList.toggle("active", label.slot === slot);
      }
      markChips(this.root);
      this.root.classList.toggle("is-a", !this.pair && this.ids[0] === a);
      this.root.classList.toggle("is-b", !this.pair && this.ids[0] === b);
      this.canvas.setAttribute("aria-label", DESCRIPTIONS[this.mode](...this.ids.map(Catalog.name)));
    }

    resize(width, height) {
      if (this.canvas.width === width && this.canvas.height === height) return;
      this.canvas.width = Math.max(1, width);
      this.canvas.height = Math.max(1, height);
      this.drawn = "";
    }

    /* Draw the pictures of a frame, unless they are on the canvas already. */
    draw(entries, { place, extent, looks, frame }) {
      const { blind, channel } = State.values;
      const kinds = entries.map((entry) => entry.address ?? entry.status);
      const boxed = this.region ? [Stage.moving(), channel] : [];
      const { width, height } = this.canvas;
      const signature = JSON.stringify([frame, place, looks, width, height, kinds, blind, boxed]);
      if (signature === this.drawn) return;
      Object.assign(this, { drawn: signature, found: entries, place, extent, looks, frame });
      this.context.clearRect(0, 0, width, height);
      this.tint();
      if (entries.every(({ status }) => status === "ready")) PAINT[this.mode](this, entries);
      if (this.region) Region.show(this);
      this.showMissing();
      this.badge();
    }

    /* Apply what changes how pictures are shown, such as the exposure. */
    tint() {
      const next = Look.filter(this.mode, this.looks);
      if (this.canvas.style.filter !== next) this.canvas.style.filter = next;
    }

    /* Draw one picture. Above 1:1, pixels are squares, and only visible ones are drawn. */
    put(context, { image, top: first, width: wide, height: high, thumbnail }) {
      const { left, top, width, height } = this.place;
      const enlarged = width > wide;
      context.imageSmoothingEnabled = !enlarged || Boolean(thumbnail);
      context.imageSmoothingQuality = Stage.moving() ? "low" : "high";
      if (!enlarged) {
        context.drawImage(image, 0, first, wide, high, left, top, width, height);
        return;
      }
      const across = width / wide,
        down = height / high;
      const x0 = Math.max(0, Math.floor(-left / across)),
        y0 = Math.max(0, Math.floor(-top / down));
      const x1 = Math.min(wide, Math.ceil((this.canvas.width - left) / across));
      const y1 = Math.min(high, Math.ceil((this.canvas.height - top) / down));
      if (x1 <= x0 || y1 <= y0) return;
      const [w, h] = [x1 - x0, y1 - y0];
      context.drawImage(image, x0, first + y0, w, h, left + x0 * across, top + y0 * down, w * across, h * down);
    }

    clipped(from, to, paint) {
      this.context.save();
      this.context.beginPath();
      this.context.rect(from, 0, to - from, this.canvas.height);
      this.context.clip();
      paint();
      this.context.restore();
    }

    showMissing() {
      const absent = this.ids.filter((_, index) => this.found[index].status !== "ready");
      this.message.textContent = absent.map((id) => `${Catalog.name(id)}: ${this.reason(id)}`).join("; ");
    }

    /* Why there is no picture. */
    reason(id) {
      const { missing, alpha } = Catalog.layers.get(id);
      if (State.values.channel === "alpha" && !alpha) return "no alpha channel";
      const out = Catalog.isOut(id) && missing.has(this.frame);
      return out ? "knocked out, so this frame was not rendered" : "this frame is missing";
    }

    /* Add a badge for each way in which a picture is not exactly the frame. */
    badge() {
      for (const { id, badges } of this.labels) {
        if (!id) continue;
        const { thumbnail, width } = this.found[this.ids.indexOf(id)];
        const { bit_depth: depth } = Catalog.layers.get(id);
        const times = width && !thumbnail ? +(this.extent[0] / width).toFixed(2) : 1;
        const words = [
          thumbnail && ["thumbnail", "A reduced picture is shown"],
          Catalog.isOut(id) && ["knocked out", `Only the frames of the first round were rendered: ${Catalog.models.get(id).knocked_out}`],
          depth > 8 && [`8 of ${depth} bits`, "An 8-bit proxy of a deeper frame is shown"],
          Catalog.seen(id, this.frame) && ["trained", "The model was trained on this frame: seen in training"],
          times !== 1 && [`×${times}`, "Enlarged to the size of the largest picture"],
        ].filter(Boolean);
        if (String(words) === badges.shown) continue;
        badges.shown = String(words);
        const kind = (text) => (text === "thumbnail" ? "badge reduced" : "badge");
        const made = words.map(([text, title]) => Object.assign(element("small", kind(text), text), { title }));
        badges.replaceChildren(...made);
      }
    }

    /* Outline the pixel below the pointer; u and v are its position in the frame, from 0 to 1. */
    mark(pointer) {
      const shown = pointer && this.place && (this !== pointer.panel || this.place.scale >= 8);
      this.marker.hidden = !shown;
      if (!shown) return;
      const { left, top, scale } = this.place;
      const side = Math.max(scale, 5);
      const [x, y] = [
        [left, pointer.u, this.extent[0]],
        [top, pointer.v, this.extent[1]],
      ].map(([start, share, length]) => start + (Math.floor(share * length) + 0.5) * scale - side / 2);
      this.marker.style.transform = `translate(${x / devicePixelRatio}px, ${y / devicePixelRatio}px)`;
      this.marker.style.width = this.marker.style.height = `${side / devicePixelRatio}px`;
    }

    /* Show the values of that pixel; none if the pointer is null. */
    read(pointer, frame) {
      for (const { id, readout } of this.labels) {
        const ids = id && this.mode !== "error" ? [id] : this.ids;
        const entries = pointer ? ids.map((each) => Pictures.peek(each, frame, false)) : [];
        const ready = entries.length > 0 && entries.every(({ status }) => status === "ready");
        const signature = ready ? JSON.stringify([entries.map(({ address }) => address), pointer.u, pointer.v]) : "";
        if (signature === (readout.signature ?? "")) continue;
        readout.signature = signature;
        if (ready)
          Readout.draw(
            readout,
            entries.map(({ image, width, height }) => ({ image, width, height, u: pointer.u, v: pointer.v })),
          );
        else Readout.clear(readout);
      }
    }
  }

  return Object.assign(Panel, { element, chips, markChips, subtract });
})();
