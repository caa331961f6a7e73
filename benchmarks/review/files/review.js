"use strict";

const MOST_SHOWN = 60;
const data = JSON.parse(document.getElementById("data").textContent);
const images = data.images;
const slider = document.getElementById("threshold");
const picture = document.getElementById("scores");
const levels = candidates(images.map((image) => image.score));
let index = nearest(data.threshold);

// The bundle's threshold, and between each two scores one: every step changes one image's side.
function candidates(scores) {
  const rising = [...new Set(scores)].sort((a, b) => a - b);
  const between = rising.slice(1).map((score, i) => (score + rising[i]) / 2);
  const spread = (rising[rising.length - 1] - rising[0]) / 20 || Math.abs(rising[0]) / 20 || 1;
  const all = [rising[0] - spread, ...between, rising[rising.length - 1] + spread, data.threshold];
  return [...new Set(all)].sort((a, b) => a - b);
}

function nearest(threshold) {
  return levels.indexOf(threshold);
}

function isRejected(image, threshold) {
  return image.score > threshold;
}

// Scores differ by orders of magnitude: the axis is logarithmic where all are above 0.
function axis() {
  const scores = images.map((image) => image.score);
  const isLog = Math.min(...scores) > 0;
  const place = isLog ? (score) => Math.log(Math.max(score, Number.MIN_VALUE)) : (score) => score;
  const low = place(Math.min(...scores)), high = place(Math.max(...scores));
  const width = picture.clientWidth || 800;
  return (score) => {
    const share = high > low ? (place(score) - low) / (high - low) : 0.5;
    return 20 + (width - 40) * Math.min(1.015, Math.max(-0.015, Number.isFinite(share) ? share : 0));
  };
}

function shape(tag, values, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw(threshold) {
  const x = axis();
  const shapes = [
    shape("text", { x: 0, y: 12 }, "good parts"),
    shape("text", { x: 0, y: 78 }, "defects"),
    shape("line", { x1: x(data.threshold), x2: x(data.threshold), y1: 4, y2: 132, class: "bundle" }),
  ];
  images.forEach((image, i) => {
    const spread = (i * 7) % 5;  // so that equal scores do not hide each other
    const cy = (image.bad ? 92 : 26) + 7 * spread;
    shapes.push(shape("circle", { cx: x(image.score), cy, r: 3, class: image.bad ? "bad" : "good" }));
  });
  shapes.push(shape("line", { x1: x(threshold), x2: x(threshold), y1: 0, y2: 136 }));
  picture.replaceChildren(...shapes);
}

function card(image) {
  const item = document.createElement("li");
  if (image.bad) item.className = "bad";
  item.tabIndex = -1;
  if (image.picture) {
    const shown = document.createElement("img");
    shown.src = image.picture;
    shown.alt = `${image.name}: image, map and overlay`;
    item.append(shown);
  } else {
    item.append(Object.assign(document.createElement("div"), { className: "none" }));
  }
  const part = Object.assign(document.createElement("span"), { className: "part", textContent: image.bad ? "defect" : "good part" });
  item.append(part, ` ${image.score.toPrecision(4)}, ${image.name}`);
  return item;
}

function list(id, chosen) {
  const shown = chosen.slice(0, MOST_SHOWN).map(card);
  if (chosen.length > shown.length) {
    shown.push(Object.assign(document.createElement("li"), { textContent: `and ${chosen.length - shown.length} more`, className: "empty" }));
  }
  if (!shown.length) shown.push(Object.assign(document.createElement("li"), { textContent: "none", className: "empty" }));
  document.getElementById(id).replaceChildren(...shown);
}

function show() {
  const threshold = levels[index];
  slider.value = index;
  const good = images.filter((image) => !image.bad), bad = images.filter((image) => image.bad);
  const rejected = good.filter((image) => isRejected(image, threshold)).sort((a, b) => b.score - a.score);
  const missed = bad.filter((image) => !isRejected(image, threshold)).sort((a, b) => a.score - b.score);
  const changed = images
    .filter((image) => isRejected(image, threshold) !== isRejected(image, data.threshold))
    .sort((a, b) => Math.abs(b.score - threshold) - Math.abs(a.score - threshold));
  const promised = (100 * (1 + rejected.length)) / (1 + good.length);
  const text = `Above ${threshold.toPrecision(4)}: ${rejected.length} of ${good.length} good parts rejected ` +
    `(at most ${promised.toFixed(2)}% false alarms expected), ${missed.length} of ${bad.length} defects missed`;
  document.getElementById("counts").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  picture.setAttribute("aria-label", text);
  list("rejected", rejected);
  list("missed", missed);
  list("changed", changed);
  document.getElementById("command").textContent = `stpm-calibrate ${data.bundle} --threshold ${threshold} --engine ${data.engine}`;
  draw(threshold);
}

function step(by) {
  const cards = [...document.querySelectorAll("li[tabindex]")];
  const at = cards.indexOf(document.activeElement);
  const next = cards[Math.min(cards.length - 1, Math.max(0, at + by))];
  if (next) next.focus();
}

document.getElementById("about").textContent =
  `${data.bundle}, ${data.engine}: ${images.length} images. Dashed: the bundle’s threshold of ${data.threshold.toPrecision(4)}. ` +
  "Keys: J and K step through the pictures, T goes to the threshold.";
slider.max = levels.length - 1;
slider.addEventListener("input", () => { index = Number(slider.value); show(); });
document.getElementById("copy").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(document.getElementById("command").textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(document.getElementById("command"));
  }
});
addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "t") slider.focus();
});
addEventListener("resize", () => draw(levels[index]));
show();
