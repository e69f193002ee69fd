"use strict";

/* Pictures: image files, loaded a few at a time, the most wanted first, and kept while there is room. */

const Pictures = (() => {
  const ROOM = 768 * 2 ** 20; // bytes of decoded pixels
  const AT_ONCE = 16;
  const cache = new Map(); // address -> {address, image, status: "loading", "ready" or "broken", thumbnail}
  let queue = [];
  let wanted = new Set();
  let loading = 0;
  let bytes = 0;
  let arrived = () => {};

  function address(id, frame, thumbnail) {
    const shelf = Catalog.shelves.get(id);
    const name = DATA.frames[frame][0];
    const parts = thumbnail
      ? ["page", "thumbnails", id, name.replace(/\.[^.]*$/, ".jpg")]
      : shelf.copied
        ? ["page", "copies", id, name.replace(/\.[^.]*$/, ".png")]
        : [...Catalog.models.get(id).folder.split("/"), name];
    return parts.map((part) => (part === ".." ? part : encodeURIComponent(part))).join("/");
  }

  /* What is known of a picture: its status is "missing" when the page was built without it. */
  function peek(id, frame, thumbnail) {
    if (Catalog.shelves.get(id).missing.has(frame)) return { status: "missing" };
    const entry = cache.get(address(id, frame, thumbnail));
    if (entry) touch(entry);
    return entry || { status: "waiting" };
  }

  /* The best of a picture that is there: the frame itself, else its thumbnail where that will do. */
  function best(id, frame, thumbnailWillDo) {
    const full = peek(id, frame, false);
    if (full.status !== "waiting" && full.status !== "loading") return full;
    const small = thumbnailWillDo && Catalog.shelves.get(id).thumbnails ? peek(id, frame, true) : full;
    return small.status === "ready" ? small : full;
  }

  /* Load these pictures, in this order, [id, frame, thumbnail] each; what was asked for before is dropped. */
  function want(list) {
    const addresses = list
      .filter(([id, frame]) => !Catalog.shelves.get(id).missing.has(frame))
      .map((picture) => address(...picture));
    wanted = new Set(addresses);
    queue = [...wanted].filter((each) => !cache.has(each));
    pump();
  }

  function pump() {
    while (loading < AT_ONCE && queue.length) load(queue.shift());
  }

  async function load(place) {
    const thumbnail = place.startsWith("page/thumbnails/");
    const entry = { address: place, image: new Image(), status: "loading", thumbnail };
    cache.set(place, entry);
    loading += 1;
    entry.image.src = place;
    try {
      await entry.image.decode();
      entry.status = "ready";
      bytes += size(entry);
    } catch {
      entry.status = "broken";
    }
    loading -= 1;
    evict();
    pump();
    arrived();
  }

  function size(entry) {
    return entry.image.naturalWidth * entry.image.naturalHeight * 4;
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
      bytes -= size(entry);
      cache.delete(place);
    }
  }

  /* Have a function called whenever a picture has arrived. */
  function onArrival(listener) {
    arrived = listener;
  }

  return { address, best, peek, want, onArrival };
})();
