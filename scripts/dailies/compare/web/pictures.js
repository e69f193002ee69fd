"use strict";

/* Pictures: image files, loaded and decoded a few at a time, the most wanted first, and kept while there is room.

   Thumbnails lie in sheets, DATA.sheet frames of one picture below each other. What is kept are bitmaps: an image that
   is drawn on a canvas is decoded when it is drawn, even where decode() has done so before. */

const Pictures = (() => {
  const ROOM = 512e6; // bytes of decoded pixels
  const AT_ONCE = 16;
  const SPELL = 24; // ms of decoding before the screen has its turn
  const cache = new Map(); // address -> {address, status: "loading", "ready" or "broken", image, bytes}
  let queue = [];
  let wanted = new Set();
  let loading = 0;
  let decoding = Promise.resolve(); // the last of those that wait for each other
  let spell = 0; // when the screen last had its turn
  let bytes = 0;
  let arrived = () => {};

  function address(id, frame, thumbnail) {
    const shelf = Catalog.shelves.get(id);
    const name = DATA.frames[frame][0];
    const parts = thumbnail
      ? ["page", "thumbnails", id, `${Math.floor(frame / DATA.sheet)}.jpg`]
      : shelf.copied
        ? ["page", "copies", id, name.replace(/\.[^.]*$/, ".png")]
        : [...Catalog.models.get(id).folder.split("/"), name];
    return parts.map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");
  }

  /* The pixels of a frame of a picture, or of the sheet that its thumbnail is on, at most. */
  function pixels(id, frame, thumbnail) {
    const [, width, height] = DATA.frames[frame];
    return thumbnail ? DATA.sheet * DATA.thumbnail ** 2 : width * height * (Catalog.models.get(id)?.scale ?? 1) ** 2;
  }

  /* What is known of a picture: its status is "missing" when the page was built without it. */
  function peek(id, frame, thumbnail) {
    if (Catalog.shelves.get(id).missing.has(frame)) return { status: "missing" };
    const entry = cache.get(address(id, frame, thumbnail));
    if (!entry) return { status: "waiting" };
    touch(entry);
    return entry.image ? { ...entry, ...part(entry.image, frame, thumbnail), thumbnail } : entry;
  }

  /* Where on its image a picture is. */
  function part({ width, height }, frame, thumbnail) {
    if (!thumbnail) return { top: 0, width, height };
    const first = frame - (frame % DATA.sheet);
    const tall = height / Math.min(DATA.sheet, DATA.frames.length - first);
    return { top: (frame - first) * tall, width, height: tall };
  }

  /* The best of a picture that is there: the frame itself, else its thumbnail where that will do. */
  function best(id, frame, thumbnailWillDo) {
    const full = peek(id, frame, false);
    if (full.status !== "waiting" && full.status !== "loading") return full;
    const small = thumbnailWillDo && Catalog.shelves.get(id).thumbnails ? peek(id, frame, true) : full;
    return small.status === "ready" ? small : full;
  }

  /* Load these pictures, [id, frame, thumbnail] each: those that must be there, then those for which there is room.
     What was asked for before is dropped. */
  function want(must, may) {
    wanted = new Set();
    let room = ROOM;
    for (const picture of [...must, ...may]) {
      const place = address(...picture);
      if (wanted.has(place) || Catalog.shelves.get(picture[0]).missing.has(picture[1])) continue;
      room -= 4 * pixels(...picture);
      if (room < 0 && wanted.size >= must.length) break;
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

  /* Decode a file, unless its turn is over; that goes on beside nothing else, so the screen has its turn in between. */
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

  /* Let go of what was not used for longest; never of what is wanted now. */
  function evict() {
    for (const [place, entry] of cache) {
      if (bytes <= ROOM) return;
      if (entry.status !== "ready" || wanted.has(place)) continue;
      bytes -= entry.bytes;
      entry.image.close();
      cache.delete(place);
    }
  }

  /* Have a function called whenever a picture has arrived. */
  function onArrival(listener) {
    arrived = listener;
  }

  return { address, pixels, best, peek, want, onArrival };
})();
