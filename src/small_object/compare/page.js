"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const { images, models, classes, sizes, kinds, rules } = data;
const truths = images.some(image => image.labelled);
const colours = { found: "#3fc1ff", false: "#ff6b4a", missed: "#ffe14d", truth: "#ffffff" };

// The state of the controls.
const wanted = {
  marks: { found: true, false: true, missed: true, truth: false, names: false },
  score: Math.floor(100 * data.lowest) / 100 % 1, iou: rules[0].iou, sameClass: rules[0].sameClass, order: "name", error: null, // a kind
  classes: new Set(data.used), sizes: new Set(sizes.keys()), models: new Set(models.keys()),
};
let current = 0; // index in `images`
let order = [...images.keys()];
const view = { scale: 1, x: 0, y: 0, fitted: true }; // screen pixels per image pixel; the image's point at the pane's centre

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children); // strings become text, never markup
  return element;
}

// Data that is loaded on demand.

const files = new Map();
window.received = content => document.currentScript.done(content);
function loadData(file) {
  if (!files.has(file)) {
    files.set(file, new Promise(done => {
      const onerror = () => { $("note").textContent = "data not found: reload the page, and keep it next to index_files"; };
      document.head.append(make("script", { src: file, done, onerror }));
    }));
  }
  return files.get(file);
}
data.boxes.forEach((boxes, index) => Object.assign(images[index], boxes));
async function loadBoxes(index) { // objects of an image as `truth`, each model's `detections`, null if it did not run
  if (images[index].detections) return;
  const number = Math.floor(index / data.shard);
  (await loadData(data.shards[number])).forEach((boxes, i) => Object.assign(images[number * data.shard + i], boxes));
}

// Facts: numbers of all detections and objects, encoded as `Facts` in Python describes.

const [FOUND, IGNORED, UNDETECTED, MISSED] = ["found", "ignored", "undetected", "missed"].map(kind => kinds.indexOf(kind));
const errors = [...kinds.keys()].filter(kind => ![FOUND, IGNORED, UNDETECTED].includes(kind));
let codes = null, ends = null; // for the current rule, null until loaded
const counts = new Uint32Array(images.length * models.length * kinds.length); // by image, model and kind
const counted = new Uint32Array(models.length * sizes.length * kinds.length); // of all images, by model, size and kind
function unpack(text) {
  const text8 = atob(text), bytes = new Uint8Array(text8.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text8.charCodeAt(i);
  return new Uint32Array(bytes.buffer);
}
async function useRule() {
  const rule = rules.find(each => each.iou === wanted.iou && each.sameClass === wanted.sameClass);
  codes = null;
  delete document.body.dataset.shown;
  const facts = rule.file ? await loadData(rule.file) : rule;
  if (rule.iou !== wanted.iou || rule.sameClass !== wanted.sameClass) return; // the rule has changed meanwhile
  codes = unpack(facts.codes);
  ends = unpack(facts.ends);
  update();
}
let minScore = 0, classOn = [], sizeOn = []; // the filters at the time of counting
const passes = code => classOn[code >>> 17] && sizeOn[code >>> 14 & 7];
const isActive = code => (code >>> 4 & 1023) > minScore === (code & 15) < UNDETECTED && passes(code);
function tally() {
  minScore = Math.round(1000 * wanted.score);
  [classOn, sizeOn] = [[classes, wanted.classes], [sizes, wanted.sizes]].map(([all, on]) => Uint8Array.from(all, (_, i) => on.has(i)));
  counts.fill(0);
  counted.fill(0);
  for (let cell = 0, i = 0; cell < ends?.length; cell++) {
    const model = cell % models.length, weight = truths && !images[(cell - model) / models.length].labelled ? 0 : 1;
    for (; i < ends[cell]; i++) {
      const code = codes[i];
      if (!isActive(code)) continue;
      counts[cell * kinds.length + (code & 15)]++;
      counted[(model * sizes.length + (code >>> 14 & 7)) * kinds.length + (code & 15)] += weight;
    }
  }
}
function sumOf(array, at) { // of a row of `counts` or `counted`
  const found = array[at + FOUND], missed = array[at + UNDETECTED];
  let wrong = 0;
  for (let kind = FOUND + 1; kind < IGNORED; kind++) wrong += array[at + kind];
  return { found, missed, false: wrong, truth: found + missed };
}
const cellOf = (index, model) => index * models.length + model;
const partOf = (index, model) => sumOf(counts, cellOf(index, model) * kinds.length);
const countOf = (index, model, kind) => counts[cellOf(index, model) * kinds.length + kind];
// What one model shows in the current image with the filters: rows of `found` and `false`, objects of `missed`, and the kind of each.
function shown(model) {
  const { truth, detections } = images[current], rows = detections?.[model], cell = cellOf(current, model);
  const part = { found: [], false: [], missed: [], truth: [], kind: new Map() };
  if (!codes || !rows) return part;
  const start = cell ? ends[cell - 1] : 0;
  const put = (list, row, kind) => {
    if (kind !== FOUND && wanted.error !== null && kind !== wanted.error) return;
    list.push(row);
    part.kind.set(row, kind);
  };
  rows.forEach((row, i) => {
    const code = codes[start + i], kind = code & 15;
    if (kind !== IGNORED && isActive(code)) put(kind === FOUND ? part.found : part.false, row, kind);
  });
  (truth || []).forEach((object, i) => {
    const at = start + rows.length + i;
    if (passes(codes[at])) part.truth.push(object);
    if (isActive(codes[at])) put(part.missed, object, isActive(codes[at + truth.length]) ? MISSED : UNDETECTED);
  });
  return part;
}
// A detection is [class, score, x1, y1, x2, y2], an object [class, x1, y1, x2, y2]: in both, the box is last.
const area = row => { const n = row.length; return (row[n - 2] - row[n - 4]) * (row[n - 1] - row[n - 3]); };

// Panes.

const panes = models.map((model, index) => {
  const canvas = make("canvas"), cross = make("div", { className: "cross" });
  const surface = make("div", { className: "view" }, canvas, cross);
  const counts = make("span");
  const figure = make("figure", {}, make("figcaption", {}, make("b", { textContent: model.name, title: model.name }), counts,
    make("span", { className: "time", textContent: `${model.milliseconds} ms`, title: "mean time per image" })), surface);
  $("panes").append(figure);
  return { index, figure, canvas, surface, cross, counts, picture: null, burnt: false };
});
const open = () => panes.filter(pane => wanted.models.has(pane.index));
const pictures = new Map(); // image files in memory, the last one shown is last

// A smaller copy for views of the whole image, which would otherwise be downscaled from all its pixels at each step.
function load(address) {
  let entry = pictures.get(address);
  if (entry) { pictures.delete(address); pictures.set(address, entry); return entry; }
  entry = { image: new Image(), levels: [], state: "loading" };
  entry.image.decoding = "async";
  entry.done = new Promise(resolve => {
    entry.image.onload = () => { entry.state = "ready"; entry.levels = [entry.image]; resolve(entry); };
    entry.image.onerror = () => { entry.state = "missing"; resolve(entry); };
  });
  entry.image.src = address;
  pictures.set(address, entry);
  while (pictures.size > 8 + models.length) pictures.delete(pictures.keys().next().value);
  return entry;
}
function levelFor(entry, scale) {
  let number = 0;
  while (scale * 2 ** (number + 1) <= 1 && Math.min(entry.image.naturalWidth, entry.image.naturalHeight) >> (number + 1) > 200) number++;
  while (entry.levels.length <= number) {
    const from = entry.levels.at(-1), width = from.naturalWidth || from.width, height = from.naturalHeight || from.height;
    const small = make("canvas", { width: Math.ceil(width / 2), height: Math.ceil(height / 2) });
    const context = small.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(from, 0, 0, small.width, small.height);
    entry.levels.push(small);
  }
  return entry.levels[number];
}

function arrange() { // set the number of columns for the largest image, and the panes' sizes
  const count = Math.max(1, open().length), box = $("panes"), [width, height] = images[current].size;
  let best = [0, 1];
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const scale = Math.min(box.clientWidth / columns / width, (box.clientHeight / rows - 26) / height);
    if (scale > best[0]) best = [scale, columns];
  }
  box.style.gridTemplateColumns = `repeat(${best[1]}, minmax(0, 1fr))`;
  box.style.gridTemplateRows = `repeat(${Math.ceil(count / best[1])}, minmax(0, 1fr))`;
  for (const pane of panes) pane.figure.hidden = !wanted.models.has(pane.index);
  for (const pane of open()) {
    pane.width = pane.surface.clientWidth;
    pane.height = pane.surface.clientHeight;
    pane.canvas.width = Math.max(1, Math.round(pane.width * devicePixelRatio));
    pane.canvas.height = Math.max(1, Math.round(pane.height * devicePixelRatio));
  }
  if (view.fitted) fit();
  limit();
}
const fitScale = () => {
  const [width, height] = images[current].size, pane = open()[0];
  return pane ? Math.max(1e-6, Math.min(pane.width / width, pane.height / height)) : 1;
};
function fit() {
  const [width, height] = images[current].size;
  Object.assign(view, { scale: fitScale(), x: width / 2, y: height / 2, fitted: true });
}
function limit() {
  const [width, height] = images[current].size;
  view.x = Math.min(width, Math.max(0, view.x));
  view.y = Math.min(height, Math.max(0, view.y));
}
function zoom(factor, pane, at) { // `at`: the point on the screen, relative to the pane's centre, that stays fixed
  if (!pane) return;
  const minScale = Math.min(1, fitScale()), scale = Math.min(64, Math.max(minScale, view.scale * factor));
  if (scale <= minScale * 1.0001) return fit(), redraw();
  view.x += at[0] / view.scale - at[0] / scale;
  view.y += at[1] / view.scale - at[1] / scale;
  view.scale = scale;
  view.fitted = false;
  limit();
  redraw();
}
function pan(x, y) {
  view.x -= x / view.scale;
  view.y -= y / view.scale;
  view.fitted = false;
  limit();
  redraw();
}

let drawing = false;
function redraw() {
  if (!drawing) { drawing = true; requestAnimationFrame(() => { drawing = false; drawAll(); }); }
}
function drawAll() {
  open().forEach(draw);
  if (codes && !updating && panes.every(pane => pane.picture && pane.picture.state !== "loading") && images[current].detections) document.body.dataset.shown = current + 1; // for tests
}
function draw(pane) {
  const context = pane.canvas.getContext("2d"), ratio = devicePixelRatio, [width, height] = images[current].size;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, pane.width, pane.height);
  const left = pane.width / 2 - view.x * view.scale, top = pane.height / 2 - view.y * view.scale;
  const entry = pane.picture;
  if (entry && entry.state === "ready") {
    // Only the visible part is drawn.
    const x1 = Math.max(0, -left / view.scale), x2 = Math.min(width, (pane.width - left) / view.scale);
    const y1 = Math.max(0, -top / view.scale), y2 = Math.min(height, (pane.height - top) / view.scale);
    const level = levelFor(entry, view.scale * ratio);
    const fx = (level.naturalWidth || level.width) / width, fy = (level.naturalHeight || level.height) / height;
    context.imageSmoothingEnabled = view.scale * ratio < 4; // from there, single pixels are visible
    if (x2 > x1 && y2 > y1) {
      context.drawImage(level, x1 * fx, y1 * fy, (x2 - x1) * fx, (y2 - y1) * fy, left + x1 * view.scale, top + y1 * view.scale,
        (x2 - x1) * view.scale, (y2 - y1) * view.scale);
    }
  } else {
    context.fillStyle = "#9aa3ad";
    context.textAlign = "center";
    context.fillText(entry && entry.state === "missing" ? "image not found" : "loading", pane.width / 2, pane.height / 2);
    context.textAlign = "start";
  }
  if (pane.burnt) return; // the boxes are in the picture
  const part = shown(pane.index), marks = wanted.marks;
  const boxes = (rows, colour, line, dash) => {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.setLineDash(dash);
    context.beginPath();
    for (const row of rows) {
      const [x1, y1, x2, y2] = row.slice(-4).map((v, i) => (i % 2 ? top : left) + v * view.scale);
      if (x2 < 0 || y2 < 0 || x1 > pane.width || y1 > pane.height) continue;
      context.rect(x1 - 1, y1 - 1, x2 - x1 + 2, y2 - y1 + 2);
    }
    context.stroke();
    if (!marks.names || colour === colours.truth) return;
    context.setLineDash([]);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "bottom";
    for (const row of rows) {
      const x = left + row.at(-4) * view.scale, y = top + row.at(-3) * view.scale - 2;
      if (x < -100 || y < 0 || x > pane.width || y > pane.height + 20) continue;
      const text = classes[row[0]] + (row.length === 6 ? ` ${row[1].toFixed(2)}` : "");
      context.lineWidth = 3;
      context.strokeStyle = "#000";
      context.strokeText(text, x, y);
      context.fillStyle = colour;
      context.fillText(text, x, y);
    }
  };
  if (marks.truth) {
    boxes(part.truth, colours.truth, 1, []);
  }
  if (marks.found) boxes(part.found, colours.found, 1.5, []);
  if (marks.false) boxes(part.false, colours.false, 2, []);
  if (marks.missed) boxes(part.missed, colours.missed, 2, [4, 3]);
}

// Pointer.

const about = kind => ({ [FOUND]: truths ? "found" : "", [MISSED]: "missed", [UNDETECTED]: "missed, but nearly found" })[kind] ?? `false alarm: ${kinds[kind]}`;
function under(pane, x, y) { // the boxes at a point of the image, the smallest first
  const part = shown(pane.index), reach = 3 / view.scale, hits = [];
  for (const kind of ["found", "false", "missed"]) {
    if (!wanted.marks[kind]) continue;
    for (const row of part[kind]) {
      const [x1, y1, x2, y2] = row.slice(-4);
      if (x >= x1 - reach && x <= x2 + reach && y >= y1 - reach && y <= y2 + reach) hits.push([area(row), part.kind.get(row), row]);
    }
  }
  return hits.sort((a, b) => a[0] - b[0]).map(([, kind, row]) => {
    const [x1, y1, x2, y2] = row.slice(-4), side = v => v < 10 ? v.toFixed(1) : Math.round(v);
    const words = [classes[row[0]], row.length === 6 ? row[1].toFixed(2) : "", `${side(x2 - x1)}×${side(y2 - y1)} px`, about(kind)];
    return words.filter(Boolean).join("  ");
  });
}
function point(pane, event) { // show the same point in all panes, and the boxes there
  const box = pane.surface.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  for (const other of open()) {
    other.cross.style.opacity = other === pane ? 0 : 0.8;
    other.cross.style.transform = `translate(${x}px, ${y}px)`;
  }
  const words = pane.burnt ? [] : under(pane, (x - pane.width / 2) / view.scale + view.x, (y - pane.height / 2) / view.scale + view.y);
  const tip = $("tip");
  tip.hidden = !words.length;
  tip.textContent = words.slice(0, 6).join("\n");
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)}px`;
}
for (const pane of panes) {
  const surface = pane.surface, fingers = new Map();
  const centre = event => {
    const box = surface.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  };
  surface.addEventListener("wheel", event => {
    event.preventDefault();
    const pixels = event.deltaY * [1, 33, 400][event.deltaMode];
    zoom(2 ** (-Math.max(-300, Math.min(300, pixels)) / 200), pane, centre(event));
  }, { passive: false });
  surface.addEventListener("pointerdown", event => {
    if (event.button) return;
    fingers.set(event.pointerId, event);
    surface.setPointerCapture(event.pointerId);
    surface.classList.add("dragging");
  });
  surface.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before) return point(pane, event);
    const other = [...fingers.values()].find(each => each.pointerId !== event.pointerId);
    if (other) { // two fingers
      const span = each => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY);
      const [a, b] = [centre(event), centre(other)];
      zoom(span(event) / Math.max(1, span(before)), pane, [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
      pan((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
    } else {
      pan(event.clientX - before.clientX, event.clientY - before.clientY);
    }
    fingers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    surface.addEventListener(end, event => {
      fingers.delete(event.pointerId);
      if (!fingers.size) surface.classList.remove("dragging");
    });
  }
  surface.addEventListener("pointerleave", () => {
    $("tip").hidden = true;
    panes.forEach(each => { each.cross.style.opacity = 0; });
  });
  surface.addEventListener("dblclick", event => {
    if (view.fitted) zoom(4, pane, centre(event));
    else { fit(); redraw(); }
  });
}

// Images.

let turn = 0;
async function show(index, scroll = true) {
  const mine = ++turn, image = images[index];
  if (images[current].size.join() !== image.size.join()) view.fitted = true; // images of one camera keep the view
  current = index;
  if (scroll) reveal(index);
  fill();
  history.replaceState(null, "", `#${index + 1}`);
  position();
  $("name").textContent = $("name").title = image.name;
  $("tip").hidden = true;
  const source = load(image.source);
  for (const pane of panes) Object.assign(pane, { picture: source, burnt: false });
  $("note").textContent = "";
  arrange();
  count();
  redraw();
  await Promise.all([source.done, loadBoxes(index)]);
  if (mine !== turn) return;
  if (source.state === "missing") { // the page was moved without its images; the annotated ones are next to it
    $("note").textContent = "image not found: annotated images are shown, filters change only the counts";
    await Promise.all(panes.map(async pane => {
      const address = image.annotated[pane.index];
      if (!address) return;
      const entry = await load(address).done;
      if (mine === turn && entry.state === "ready") Object.assign(pane, { picture: entry, burnt: true });
    }));
    if (mine !== turn) return;
  } else {
    const next = order[order.indexOf(index) + 1];
    if (next !== undefined) { load(images[next].source); loadBoxes(next); }
  }
  count();
  redraw();
}
const step = by => {
  const next = order[order.indexOf(current) + by];
  if (next !== undefined) show(next);
};
const hasError = (index, model) => wanted.error === null ? partOf(index, model).missed + partOf(index, model).false : countOf(index, model, wanted.error);
function stepToError(by) { // the next image in which an open model makes an error of the chosen kind
  for (let i = order.indexOf(current) + by; i >= 0 && i < order.length; i += by) {
    if (open().some(pane => hasError(order[i], pane.index))) return show(order[i]);
  }
}

let visited = null; // the last error visited
function goToError(by) { // zoom in on the next missed object or false alarm in this image, from left to right, or in a later one
  const errors = open().flatMap(pane => {
    const part = shown(pane.index);
    return [...(wanted.marks.missed ? part.missed : []), ...(wanted.marks.false ? part.false : [])].map(row => row.slice(-4));
  }).sort((a, b) => a[0] + a[2] - b[0] - b[2]);
  const distinct = errors.filter((box, i) => !i || box.join() !== errors[i - 1].join()); // missed by several models
  const at = visited && visited.image === current ? distinct.findIndex(box => box.join() === visited.box) + by : by > 0 ? 0 : distinct.length - 1;
  const box = distinct[at];
  if (!box) { visited = null; return stepToError(by); }
  visited = { image: current, box: box.join() };
  const side = Math.max(4, box[2] - box[0], box[3] - box[1]), pane = open()[0];
  const scale = Math.min(16, Math.max(fitScale(), Math.min(pane.width, pane.height) / (5 * side)));
  Object.assign(view, { scale, x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2, fitted: false });
  redraw();
}

// The strip holds only the buttons of visible images.
const film = make("div"), gap = 4;
$("strip").append(film);
let buttons = new Map(); // by image
let lefts = []; // left sides of the images in `order`, and the right end
const widthOf = ({ size: [width, height] }) => Math.max(80, Math.round(Math.min(232, 90 * width / height)) + 8);
function makeButton(index) {
  const image = images[index];
  const button = make("button", { title: image.name }, make("img", { decoding: "async", alt: "", src: image.thumbnail }));
  button.bars = models.map(() => make("i"));
  button.append(...button.bars, make("span", { textContent: image.name }));
  button.style.width = `${widthOf(image)}px`;
  button.addEventListener("click", () => show(index, false));
  return button;
}
function layFilm() {
  lefts = [0];
  for (const index of order) lefts.push(lefts.at(-1) + widthOf(images[index]) + gap);
  film.style.width = `${lefts.at(-1)}px`;
}
function fill() {
  const strip = $("strip"), from = strip.scrollLeft - 400, to = strip.scrollLeft + strip.clientWidth + 400, seen = new Map();
  let at = 0;
  for (let end = order.length; at < end;) { // the first that ends after `from`
    const middle = at + end >> 1;
    if (lefts[middle + 1] < from) at = middle + 1; else end = middle;
  }
  for (; at < order.length && lefts[at] < to; at++) {
    const button = buttons.get(order[at]) || makeButton(order[at]);
    button.style.left = `${lefts[at]}px`;
    button.setAttribute("aria-current", order[at] === current);
    seen.set(order[at], button);
    bars(order[at], button);
  }
  if ([...seen.keys()].join() !== [...buttons.keys()].join()) film.replaceChildren(...seen.values());
  buttons = seen;
}
let filling = false;
$("strip").addEventListener("scroll", () => {
  if (!filling) { filling = true; requestAnimationFrame(() => { filling = false; fill(); }); }
});
function reveal(index) {
  const strip = $("strip"), at = order.indexOf(index), left = lefts[at], right = lefts[at + 1];
  if (at >= 0 && (left < strip.scrollLeft || right > strip.scrollLeft + strip.clientWidth)) strip.scrollLeft = (left + right - strip.clientWidth) / 2;
}
function bars(index, button) {
  const of = models.map((_, model) => partOf(index, model));
  const most = Math.max(1, ...of.map(part => part.truth + part.false));
  of.forEach((part, model) => {
    const bar = button.bars[model];
    bar.hidden = !wanted.models.has(model);
    let at = 0;
    const stops = ["found", "missed", "false"].map(kind => {
      const from = at;
      at += 100 * part[kind] / most;
      return `${colours[kind]} ${from}% ${at}%`;
    });
    bar.style.background = `linear-gradient(90deg, ${stops.join(", ")}, transparent ${at}%)`;
    bar.title = words(part).map(([, text]) => text).join(", ");
  });
}

// Counts.

function words(part, labelled = truths) {
  if (!labelled) return [["found", `${part.found} found`]];
  return [["found", `${part.found} of ${part.truth} found`], ["missed", `${part.missed} missed`], ["false", `${part.false} false alarms`]];
}
function count() { // the panes' captions and the tables, which depend on the filters
  for (const pane of open()) {
    const { labelled, detections } = images[current], ran = !detections || detections[pane.index];
    const texts = ran ? words(partOf(current, pane.index), labelled) : [["missed", "not run"]];
    if (wanted.error !== null) texts.push(["", `of these ${countOf(current, pane.index, wanted.error)} ${kinds[wanted.error]}`]);
    pane.counts.replaceChildren(...texts.flatMap(([kind, text]) => [make("span", { className: kind, textContent: text }), "  "]));
  }
  const percent = (a, b) => b ? (100 * a / b).toFixed(1) : "–";
  let objects = 0;
  const rows = [];
  models.forEach((model, number) => {
    const sum = { found: 0, false: 0, missed: 0, truth: 0 }, bySize = sizes.map(([name], size) => [name, (number * sizes.length + size) * kinds.length]);
    for (const [, at] of bySize) for (const [kind, value] of Object.entries(sumOf(counted, at))) sum[kind] += value;
    sum.precision = percent(sum.found, sum.found + sum.false);
    sum.recall = percent(sum.found, sum.truth);
    for (const [kind, cell] of Object.entries(totals[number])) cell.textContent = sum[kind];
    objects = Math.max(objects, sum.truth);
    if (!truths || !wanted.models.has(number)) return;
    const cells = values => values.map(value => make("td", { textContent: value, className: value ? "" : "none" }));
    rows.push(make("tr", {}, make("td", { colSpan: errors.length + 1, textContent: model.name })));
    rows.push(make("tr", {}, make("th", { textContent: "all" }), ...cells(errors.map(kind => bySize.reduce((total, [, at]) => total + counted[at + kind], 0)))));
    for (const [name, at] of bySize) {
      const values = errors.map(kind => counted[at + kind]);
      if (values.some(value => value)) rows.push(make("tr", {}, make("th", { textContent: name }), ...cells(values)));
    }
  });
  $("errors").replaceChildren($("errors").rows[0], ...rows);
  const num = truths ? images.filter(image => image.labelled).length : images.length;
  $("sum").textContent = truths ? `${num} images, ${objects} objects` : `${num} images`;
}
function position() {
  const at = order.indexOf(current) + 1, all = order.length < images.length ? ` (${images.length} in all)` : "";
  $("position").textContent = order.length ? `${at || "–"} of ${order.length}${all}` : "no such image";
}

// Controls.

const orders = { name: "by name" };
if (truths) Object.assign(orders, { missed: "most missed", false: "most false alarms" });
if (models.length > 1) orders.differ = "models differ most";
function sort() {
  const sum = of => index => open().reduce((total, pane) => total + of(index, pane.index), 0);
  const value = {
    name: () => 0,
    missed: sum((index, model) => partOf(index, model).missed),
    false: sum((index, model) => partOf(index, model).false),
    error: sum(hasError),
    differ: index => {
      const found = open().map(pane => countOf(index, pane.index, FOUND));
      return found.length ? Math.max(...found) - Math.min(...found) : 0;
    },
  };
  const values = images.map((_, index) => value[wanted.order](index));
  order = [...images.keys()].filter(index => wanted.error === null || value.error(index));
  order.sort((a, b) => values[b] - values[a] || a - b);
  layFilm();
}
let updating = false;
function update() { // after a filter changed; at most once per frame
  if (updating) return;
  updating = true;
  requestAnimationFrame(() => {
    updating = false;
    if (!codes) return; // called again when they are loaded
    tally();
    const before = order.join();
    sort();
    if (order.length && !order.includes(current)) show(order[0]);
    arrange();
    count();
    if (order.join() !== before) reveal(current);
    fill();
    position();
    $("minimum").textContent = wanted.score.toFixed(2);
    drawAll();
  });
}
function checkbox(parent, text, on, change, key, colour) {
  const input = make("input", { type: "checkbox", checked: on });
  input.addEventListener("change", () => { change(input.checked); update(); });
  const label = make("label", {}, input);
  if (colour) label.append(make("span", { className: `key ${colour}` }));
  label.append(text);
  if (key) label.append(make("kbd", { textContent: key }));
  (parent.append ? parent : $(parent)).append(label);
  return input;
}
const member = (set, value) => on => { if (on) set.add(value); else set.delete(value); };
const marks = {};
const shows = truths ? [["found", "found", "F"], ["missed", "missed", "M"], ["false", "false alarms", "A"], ["truth", "ground truth", "G"]] : [["found", "found", "F"]];
for (const [kind, text, key] of shows) {
  marks[key.toLowerCase()] = checkbox("marks", text, wanted.marks[kind], on => { wanted.marks[kind] = on; }, key, kind);
}
marks.l = checkbox("marks", "class and score", false, on => { wanted.marks.names = on; }, "L");
data.used.forEach(index => {
  const input = checkbox("classes", classes[index], true, member(wanted.classes, index));
  input.parentElement.addEventListener("dblclick", () => only("classes", index));
  input.parentElement.title = "double click: only this";
});
sizes.forEach(([name, low, high], index) => {
  const range = high === null ? `≥ ${low}` : low ? `${low}–${high}` : `< ${high}`;
  const input = checkbox("sizes", name, true, member(wanted.sizes, index));
  input.parentElement.append(make("output", { textContent: range }));
  input.parentElement.addEventListener("dblclick", () => only("sizes", index));
  input.parentElement.title = "double click: only this";
});
function only(group, index) {
  [...$(group).querySelectorAll("input")].forEach((input, i) => {
    const own = group === "classes" ? data.used[i] : i;
    input.checked = own === index;
    member(wanted[group], own)(input.checked);
  });
  update();
}
const columns = truths ? { found: "found", missed: "missed", false: "false", precision: "P %", recall: "R %" } : { found: "found" };
const hints = { precision: "precision: found, of all detections", recall: "recall: found, of all objects" };
$("totals").append(make("tr", {}, ...Object.entries(columns).map(([kind, textContent]) => make("th", { scope: "col", textContent, title: hints[kind] || "" }))));
const totals = [], modelBoxes = models.map((model, index) => {
  const head = make("td", { colSpan: 5 }), cells = {};
  for (const kind of Object.keys(columns)) cells[kind] = make("td", { className: kind });
  totals.push(cells);
  $("totals").append(make("tr", {}, head), make("tr", {}, ...Object.values(cells)));
  return checkbox(head, model.name, true, member(wanted.models, index), index < 9 ? `${index + 1}` : "");
});
$("overlap").hidden = $("kinds").hidden = $("with").hidden = !truths;
for (const value of [...new Set(rules.map(rule => rule.iou))].sort()) $("iou").append(make("option", { value, textContent: value, selected: value === wanted.iou }));
const loose = checkbox("overlap", "and its class", wanted.sameClass, on => { wanted.sameClass = on; useRule(); });
$("iou").addEventListener("change", event => { wanted.iou = +event.target.value; useRule(); });
const means = { class: ["cls", "overlaps an object of another class"], localisation: ["loc", "overlaps an object of its class too little"],
  both: ["both", "overlaps an object of another class too little"], duplicate: ["dup", "overlaps an object that a detection with a higher score takes"],
  background: ["bkg", "overlaps no object"], missed: ["miss", "an object without any detection, even of another class or poorly placed"] };
$("errors").append(make("tr", {}, make("th"), ...errors.map(kind => make("th", { scope: "col", textContent: means[kinds[kind]][0], title: `${kinds[kind]}: ${means[kinds[kind]][1]}` }))));
$("error").append(make("option", { value: "", textContent: "all" }), ...errors.map(value => make("option", { value, textContent: value === MISSED ? "missed outright" : kinds[value], title: means[kinds[value]][1] })));
$("error").addEventListener("change", event => { wanted.error = event.target.value === "" ? null : +event.target.value; update(); event.target.blur(); });
for (const [value, text] of Object.entries(orders)) $("order").append(make("option", { value, textContent: text }));
$("order").addEventListener("change", event => { wanted.order = event.target.value; update(); event.target.blur(); });

Object.assign($("score"), { min: wanted.score, value: wanted.score });
$("score").addEventListener("input", event => { wanted.score = +event.target.value; update(); });
function nudge(by) {
  $("score").value = +$("score").value + by;
  wanted.score = +$("score").value;
  update();
}

$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("fit").addEventListener("click", () => whole());
$("help").addEventListener("click", () => $("keys").showModal());
const middle = factor => zoom(factor, open()[0], [0, 0]);
const whole = () => { fit(); redraw(); };
const keys = [ // the browser's name, the action, the label and the text in the list
  ["arrowright", () => step(1), "→", "next image"], ["arrowleft", () => step(-1), "←", "previous image"],
  ["n", () => stepToError(1), "N", truths && "next image with a missed object or a false alarm"],
  ["p", () => stepToError(-1), "P", truths && "previous such image"],
  ["e", () => goToError(1), "E", truths && "zoom in on the next missed object or false alarm; Shift+E: the previous one"], ["E", () => goToError(-1)],
  ["home", () => show(order[0]), "Home", "first image"], ["end", () => show(order.at(-1)), "End", "last image"],
  ["+", () => middle(1.5), "+", "zoom in"], ["=", () => middle(1.5)], ["-", () => middle(1 / 1.5), "−", "zoom out"],
  ["0", whole, "0", "whole image"], ["f", () => marks.f.click(), "F", "found: on or off"],
  ["m", () => marks.m?.click(), "M", truths && "missed"], ["a", () => marks.a?.click(), "A", truths && "false alarms"],
  ["g", () => marks.g?.click(), "G", truths && "ground truth"], ["l", () => marks.l.click(), "L", "class and score"],
  ["[", () => nudge(-0.05), "[", "lower minimum score"], ["]", () => nudge(0.05), "]", "higher minimum score"],
  ["?", () => $("keys").showModal(), "?", "this list"],
];
for (const [, , key, text] of keys) {
  if (text) $("list").append(make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: text }));
}
$("list").append(make("dt", {}, make("kbd", { textContent: "1" }), "…", make("kbd", { textContent: "9" })), make("dd", { textContent: "models: on or off" }));
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const at = event.target.tagName, slider = at === "INPUT" && event.target.type === "range";
  if (at === "SELECT" || (slider && /^(Arrow|Home|End|Page)/.test(event.key))) return;
  const name = event.key.toLowerCase();
  const action = keys.find(([key]) => key === (name === "e" ? event.key : name))?.[1] || (/^[1-9]$/.test(name) && modelBoxes[name - 1] && (() => modelBoxes[name - 1].click()));
  if (!action) return;
  action();
  event.preventDefault();
});
new ResizeObserver(() => { arrange(); redraw(); fill(); }).observe($("panes"));
const linked = () => Math.min(images.length, Math.max(1, parseInt(location.hash.slice(1), 10) || 1)) - 1;
addEventListener("hashchange", () => show(linked()));

$("minimum").textContent = wanted.score.toFixed(2);
layFilm();
show(linked());
useRule();
})();
