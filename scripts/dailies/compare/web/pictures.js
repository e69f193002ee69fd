"use strict";

/* Pictures: a cache of image files, which are loaded and decoded a few at a time in the order of their priority.

   A sheet of thumbnails has DATA.sheet frames of one layer, one below the other. The cache holds bitmaps, because an
   image is decoded again when it is drawn on a canvas, even after decode(). */

const Pictures = (() => {
  const ROOM = 512e6; // bytes of decoded pixels
  const AT_ONCE = 16;
  const SPELL = 60; // ms of decoding between screen refreshes; waiting for each refresh costs a third of the time
  const cache = new Map(); // address -> {address, status: "loading", "ready" or "broken", image, bytes}
  let queue = [];
  let wanted = new Set();
  let loading = 0;
  let decoding = Promise.resolve(); // the end of the queue of decoding
  let spell = 0; // time of the last screen refresh
  let bytes = 0;
  let arrived = () => {};

  /* Whether the pictures are those of the alpha channel, which are files of their own. */
  function ofAlpha() {
    return State.values.channel === "alpha";
  }

  /* Whether pictures have thumbnails. */
  function small(id) {
    return Catalog.layers.get(id).thumbnails && !ofAlpha();
  }

  /* Whether the page was built without a picture. */
  function lacks(id, frame) {
    const { missing, alpha } = Catalog.layers.get(id);
    return missing.has(frame) || (ofAlpha() && !alpha);
  }

  function address(id, frame, thumbnail) {
    const layer = Catalog.layers.get(id);
    const name = DATA.frames[frame][0];
    const parts = thumbnail
      ? ["page", "thumbnails", id, `${Math.floor(frame / DATA.sheet)}.jpg`]
      : layer.copied
        ? ["page", ofAlpha() ? "alpha" : "copies", id, name.replace(/\.[^.]*$/, ".png")]
        : [...Catalog.models.get(id).folder.split("/"), name];
    return parts.map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");
  }

  /* The number of pixels of a picture; for a thumbnail, at most that of its sheet. */
  function pixels(id, frame, thumbnail) {
    const [, width, height] = DATA.frames[frame];
    return thumbnail ? DATA.sheet * DATA.thumbnail ** 2 : width * height * (Catalog.models.get(id)?.scale ?? 1) ** 2;
  }

  /* The cache entry of a picture. Its status is "missing" if the page was built without it. */
  function peek(id, frame, thumbnail) {
    if (lacks(id, frame)) return { status: "missing" };
    const entry = cache.get(address(id, frame, thumbnail));
    if (!entry) return { status: "waiting" };
    touch(entry);
    return entry.image ? { ...entry, ...part(entry.image, frame, thumbnail), thumbnail } : entry;
  }

  /* The part of the image that a picture occupies. */
  function part({ width, height }, frame, thumbnail) {
    if (!thumbnail) return { top: 0, width, height };
    const first = frame - (frame % DATA.sheet);
    const tall = height / Math.min(DATA.sheet, DATA.frames.length - first);
    return { top: (frame - first) * tall, width, height: tall };
  }

  /* The best version of a picture that is loaded: the frame itself, or its thumbnail if that is acceptable. */
  function best(id, frame, acceptThumbnail) {
    const full = peek(id, frame, false);
    if (full.status !== "waiting" && full.status !== "loading") return full;
    const substitute = acceptThumbnail && small(id) ? peek(id, frame, true) : full;
    return substitute.status === "ready" ? substitute : full;
  }

  /* Load pictures, given as [id, frame, thumbnail]: all that are required, then others while there is room. Earlier
     requests that are not repeated are dropped. */
  function request(required, optional) {
    wanted = new Set();
    let room = ROOM;
    for (const picture of [...required, ...optional]) {
      const place = address(...picture);
      if (wanted.has(place) || lacks(picture[0], picture[1])) continue;
      room -= 4 * pixels(...picture);
      if (room < 0 && wanted.size >= required.length) break;
      wanted.add(place);
    }
    queue = [...wanted].filter((each) => !cache.has(each));
    pump();
  }

  function pump() {
    while (loading < AT_ONCE && queue.length) load(queue.shift());
  }

  async function load(place) {
    const entry = { address: place, status: "loading", bytes: 0 };
    cache.set(place, entry);
    loading += 1;
    try {
      const file = await loaded(place);
      const turn = decoding.then(() => decode(entry, file));
      decoding = turn.catch(() => {});
      await turn;
    } catch {
      entry.status = "broken";
    }
    loading -= 1;
    evict();
    pump();
    arrived();
  }

  function loaded(place) {
    return new Promise((resolve, reject) => {
      const file = new Image();
      file.onload = () => resolve(file);
      file.onerror = reject;
      file.src = place;
    });
  }

  /* Decode a file unless it is no longer wanted. Files are decoded one at a time, with screen refreshes in between. */
  async function decode(entry, file) {
    if (performance.now() - spell > SPELL) {
      await new Promise(requestAnimationFrame);
      spell = performance.now();
    }
    if (!wanted.has(entry.address)) {
      cache.delete(entry.address);
      return;
    }
    entry.image = await createImageBitmap(file);
    entry.status = "ready";
    entry.bytes = entry.image.width * entry.image.height * 4;
    bytes += entry.bytes;
  }

  function touch(entry) {
    cache.delete(entry.address);
    cache.set(entry.address, entry);
  }

  /* Evict the least recently used pictures, but none that is wanted now. */
  function evict() {
    for (const [place, entry] of cache) {
      if (bytes <= ROOM) return;
      if (entry.status !== "ready" || wanted.has(place)) continue;
      bytes -= entry.bytes;
      entry.image.close();
      cache.delete(place);
    }
  }

  /* Set the function to call when a picture was loaded. */
  function onArrival(listener) {
    arrived = listener;
  }

  return { address, pixels, small, best, peek, request, onArrival };
})();
