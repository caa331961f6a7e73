"use strict";

const WORDS = { ok: "ok", warn: "inspect", anomalous: "anomalous", unaligned: "not aligned", error: "unreadable", dropped: "dropped" };
const ORDER = Object.keys(WORDS);
const sections = new Map();
let told = "";

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fileName(path) {
  return path.split(/[\\/]/).pop();
}

function sectionOf(camera) {
  if (!sections.has(camera.name)) {
    const section = document.getElementById("camera").content.cloneNode(true).firstElementChild;
    section.querySelector("h2").textContent = camera.name;
    section.setAttribute("aria-label", camera.name);
    document.getElementById("cameras").append(section);
    sections.set(camera.name, section);
  }
  return sections.get(camera.name);
}

function showCounts(list, counts) {
  list.replaceChildren(...ORDER.filter((verdict) => counts[verdict] || verdict === "ok" || verdict === "anomalous").map((verdict) => {
    const group = element("div");
    group.append(element("dt", WORDS[verdict]), element("dd", counts[verdict] || 0, verdict));
    return group;
  }));
}

function showScores(figure, camera) {
  const svg = figure.querySelector("svg");
  const scores = camera.scores;
  const width = svg.clientWidth || 600;
  const step = Math.min(12, (width - 6) / scores.length);
  svg.setAttribute("viewBox", `0 0 ${width} 140`);
  // From the lowest score, so that scores far from 0 are told apart; outliers stand at the edge.
  const lowest = Math.min(camera.threshold, camera.warn_threshold ?? Infinity, ...scores.map(([score]) => score));
  const below = camera.threshold - lowest || Math.abs(camera.threshold) || 1;
  const highest = Math.max(camera.threshold + 0.6 * below, ...scores.map(([score]) => Math.min(score, camera.threshold + 3 * below)));
  const y = (score) => 136 - (132 * (Math.min(score, highest) - lowest)) / (highest - lowest);
  const shapes = [];
  const line = (score, className) => {
    const made = document.createElementNS(svg.namespaceURI, "line");
    for (const [key, value] of Object.entries({ x1: 0, x2: width, y1: y(score), y2: y(score), class: className })) made.setAttribute(key, value);
    shapes.push(made);
  };
  line(camera.threshold, "");
  if (camera.warn_threshold !== null) line(camera.warn_threshold, "warn");
  scores.forEach(([score, verdict], index) => {
    const dot = document.createElementNS(svg.namespaceURI, "circle");
    const values = { cx: width - 3 - step * (scores.length - 1 - index), cy: y(score), r: 2.5, class: verdict };
    for (const [key, value] of Object.entries(values)) dot.setAttribute(key, value);
    shapes.push(dot);
  });
  svg.replaceChildren(...shapes);
  const above = scores.filter(([score]) => score > camera.threshold).length;
  svg.setAttribute("aria-label", `The last ${scores.length} scores; ${above} above the threshold`);
  figure.querySelector("figcaption").textContent =
    `The last ${scores.length} scores, newest right, from ${lowest.toPrecision(3)} to ${highest.toPrecision(3)}. ` +
    `Line: threshold ${camera.threshold.toPrecision(4)}`;
}

function showLast(list, rows) {
  const wanted = new Map(rows.map((row) => [String(row.number), row]));
  for (const item of [...list.children]) if (!wanted.has(item.dataset.number)) item.remove();
  const there = new Set([...list.children].map((item) => item.dataset.number));
  for (const row of [...rows].reverse()) {
    if (there.has(String(row.number))) continue;
    const item = element("li");
    item.dataset.number = row.number;
    const button = element("button");
    const name = fileName(row.image);
    const score = row.score === null ? "" : ` ${row.score.toPrecision(4)}`;
    if (row.has_picture) {
      const picture = element("img", undefined, row.verdict);
      picture.src = `pictures/${row.number}.jpg`;
      picture.alt = "";
      button.append(picture);
      button.addEventListener("click", () => enlarge(row, `${WORDS[row.verdict]}${score}, ${name}`));
    } else {
      button.append(element("div", undefined, `none ${row.verdict}`));
      button.disabled = true;
    }
    button.append(element("strong", `${WORDS[row.verdict]}${score}`, row.verdict), element("span", name));
    button.title = row.error || row.image;
    item.append(button);
    list.prepend(item);
  }
}

function enlarge(row, text) {
  const viewer = document.getElementById("viewer");
  viewer.querySelector("img").src = `pictures/${row.number}.jpg`;
  viewer.querySelector("img").alt = text;
  viewer.querySelector("figcaption").textContent = text;
  viewer.showModal();
}

function warningsOf(camera) {
  const changed = Object.entries(camera.drift).filter(([, state]) => state.alarm).map(([name]) => name);
  const warnings = camera.state ? [`The camera is ${camera.state}.`] : [];
  if (changed.length) warnings.push(`Changed since calibration: ${changed.join(", ")}. Check lighting, lens and parts, and calibrate again.`);
  return warnings.join(" ");
}

function showCamera(camera) {
  const section = sectionOf(camera);
  const [p50, p99] = camera.latency_ms.total || [0, 0];
  const shadow = camera.shadow_differs === null ? "" : `; the shadow bundle differs in ${camera.shadow_differs} verdicts`;
  section.querySelector(".about").textContent =
    `${camera.bundle}, ${camera.engine}; from frame to record p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms${shadow}`;
  const warning = section.querySelector(".warning");
  warning.textContent = warningsOf(camera);
  warning.hidden = !warning.textContent;
  showCounts(section.querySelector(".counts"), camera.counts);
  showScores(section.querySelector(".scores"), camera);
  showLast(section.querySelector(".last"), camera.last);
}

function showSinks(sinks) {
  const section = document.getElementById("delivery");
  const shown = sinks.filter((sink) => sink.address !== "page");
  section.hidden = shown.length === 0;
  section.querySelector("tbody").replaceChildren(...shown.map((sink) => {
    const row = element("tr");
    const cells = [sink.address, sink.sent, sink.waiting, sink.lost, sink.state || "well"];
    row.append(...cells.map((cell) => element("td", cell)));
    return row;
  }));
}

function show(state) {
  state.cameras.forEach(showCamera);
  showSinks(state.sinks);
  const alarm = state.cameras.map((camera) => [camera.name, warningsOf(camera)]).filter(([, text]) => text).map((pair) => pair.join(": ")).join(" ");
  if (alarm !== told) document.getElementById("alarm").textContent = told = alarm;
}

const connection = document.getElementById("connection");
const events = new EventSource("events");
events.onopen = () => { connection.textContent = "live"; };
events.onerror = () => { connection.textContent = "no connection to the station; reconnecting"; };
events.onmessage = (event) => show(JSON.parse(event.data));
