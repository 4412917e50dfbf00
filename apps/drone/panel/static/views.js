/**
 * The camera views that the version in command has. `hello` names them with a module each; one that this page does
 * not have yet is imported then and there, so that a new version's view appears in a page opened under the old one.
 *
 * A view module exports `mount(picture)`, which fills the given element and returns `draw(image, facts)`; `image`
 * are the bytes behind the frame's 16-byte header, `facts` is { seq, captureUs }.
 */
const HEADER_BYTES = 16;
const ARRIVED_MS = 12_000;
/** Frames kept for a view whose module is still on its way. */
const EARLY_MAX = 40;

export const createViews = (parent) => {
  /** By kind: { card, facts, draw, early, frames, lost, seq, arrivals }. */
  const views = new Map();
  let greeted = false;

  const open = async (view, late) => {
    const card = document.createElement('section');
    card.className = 'card view dark';
    card.id = `view-${view.id}`;
    const title = document.createElement('h2');
    const name = document.createElement('b');
    name.textContent = view.title;
    const facts = document.createElement('span');
    facts.className = 'facts';
    title.append(name, facts);
    const picture = document.createElement('div');
    picture.className = 'picture';
    card.append(title, picture);
    const entry = { card, facts, draw: null, early: [], frames: 0, lost: 0, seq: null, arrivals: [] };
    views.set(view.kind, entry);
    const { mount } = await import(view.module);
    if (views.get(view.kind) !== entry) return;
    entry.draw = mount(picture);
    parent.append(card);
    if (late) {
      card.classList.add('arrived');
      setTimeout(() => card.classList.remove('arrived'), ARRIVED_MS);
    }
    for (const [image, about] of entry.early.splice(0)) entry.draw(image, about);
  };

  return {
    /** @returns titles of views that came while the page was open */
    hello(list) {
      const wanted = new Map(list.map((view) => [view.kind, view]));
      for (const [kind, entry] of views) {
        if (wanted.has(kind)) continue;
        entry.card.remove();
        views.delete(kind);
      }
      const fresh = list.filter((view) => !views.has(view.kind));
      for (const view of fresh) {
        open(view, greeted).catch((error) => {
          views.delete(view.kind);
          console.error(`view ${view.id}: ${error}`);
        });
      }
      const late = greeted ? fresh : [];
      greeted = true;
      return late.map((view) => view.title);
    },

    frame(bytes) {
      if (bytes.byteLength < HEADER_BYTES) return;
      const header = new DataView(bytes);
      const entry = views.get(header.getUint8(0));
      if (entry === undefined) return;
      const seq = header.getUint32(4, true);
      if (entry.seq !== null && seq > entry.seq + 1) entry.lost += seq - entry.seq - 1;
      entry.seq = seq;
      entry.frames += 1;
      // A drone may have no camera: until its first frame the card says so.
      entry.card.classList.remove('dark');
      const nowMs = performance.now();
      entry.arrivals.push(nowMs);
      while (entry.arrivals[0] < nowMs - 2_000) entry.arrivals.shift();
      const image = new Uint8Array(bytes, HEADER_BYTES);
      const about = { seq, captureUs: header.getFloat64(8, true) };
      if (entry.draw !== null) entry.draw(image, about);
      else if (entry.early.length < EARLY_MAX) entry.early.push([image, about]);
      entry.facts.textContent = `${Math.round(entry.arrivals.length / 2)}/s  #${seq}`;
    },

    /** A new connection starts a new count. */
    restart() {
      for (const entry of views.values()) entry.seq = null;
    },
    counts: () => [...views].map(([kind, { frames, lost, seq }]) => ({ kind, frames, lost, seq })),
  };
};
