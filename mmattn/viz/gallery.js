"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const grid = $(".cards");
const cards = $$(".card");
const slider = $("#threshold");
const state = { kind: "all", query: "", order: "high", current: null };
const numberOf = (card) => (card.dataset.score === undefined ? null : Number(card.dataset.score));

function kindOf(card) {
  return ["above", "below", "failed"].find((kind) => card.classList.contains(kind)) || "plain";
}

function relabel() {
  if (!slider) return;
  const threshold = Number(slider.value);
  const low = Number(slider.min), high = Number(slider.max);
  for (const card of cards) {
    const score = numberOf(card);
    if (score === null || card.classList.contains("failed")) continue;
    const above = score > threshold;
    card.classList.toggle("above", above);
    card.classList.toggle("below", !above);
    $(".chip", card).textContent = above ? grid.dataset.above : grid.dataset.below;
  }
  $("#threshold-value").textContent = threshold.toFixed(3);
  document.body.style.setProperty("--threshold", `${(100 * (threshold - low)) / (high - low)}%`);
  for (const bin of $$(".slide rect")) bin.classList.toggle("above", Number(bin.dataset.from) >= threshold);
  for (const kind of ["above", "below"]) {
    $(`#count-${kind}`).textContent = cards.filter((card) => card.classList.contains(kind)).length;
  }
}

function filter() {
  const query = state.query.trim().toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const fits = state.kind === "all" || kindOf(card) === state.kind;
    card.hidden = !(fits && card.dataset.title.toLowerCase().includes(query));
    shown += card.hidden ? 0 : 1;
  }
  $(".empty").hidden = shown > 0;
}

function sort() {
  const byName = (a, b) => a.dataset.title.localeCompare(b.dataset.title, undefined, { numeric: true });
  const sign = state.order === "low" ? 1 : -1;
  const byScore = (a, b) => {
    const x = numberOf(a), y = numberOf(b);
    if (x === null || y === null) return (x === null) - (y === null) || byName(a, b);
    return sign * (x - y) || byName(a, b);
  };
  cards.sort(state.order === "name" ? byName : byScore);
  grid.append(...cards);
}

function wipe(event) {
  const box = this.getBoundingClientRect();
  const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  this.style.setProperty("--cut", `${100 * part}%`);
  this.classList.add("wiping");
}

function rest() {
  this.style.removeProperty("--cut");
  this.classList.remove("wiping");
}

const zoom = $("dialog");

function show(index) {
  const media = JSON.parse(state.current.dataset.media);
  const entry = media[index];
  const element = document.createElement(entry.kind);
  element.src = entry.path;
  if (entry.kind === "img") element.alt = `${state.current.dataset.title}, ${entry.name}`;
  else element.controls = true;
  $(".canvas", zoom).replaceChildren(element);
  $$(".show button", zoom).forEach((button, i) => button.setAttribute("aria-pressed", String(i === index)));
}

function open(card, index) {
  state.current = card;
  const media = JSON.parse(card.dataset.media);
  $("h2", zoom).textContent = card.dataset.title;
  $(".show", zoom).replaceChildren(
    ...media.map((entry, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = entry.name;
      button.addEventListener("click", () => show(i));
      return button;
    }),
  );
  const facts = $$(".chip, .score, .details", card).map((node) => node.cloneNode(true));
  const box = $(".facts", zoom);
  box.className = `facts ${kindOf(card)}`;
  facts.filter((node) => node.classList.contains("chip")).forEach((chip) => chip.classList.add(kindOf(card)));
  box.replaceChildren(...facts);
  show(Math.min(index, media.length - 1));
  if (!zoom.open) zoom.showModal();
}

function step(by) {
  const visible = cards.filter((card) => !card.hidden && card.dataset.media);
  const at = visible.indexOf(state.current);
  const buttons = $$(".show button", zoom);
  const index = Math.max(0, buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true"));
  if (visible.length) open(visible[(at + by + visible.length) % visible.length], index);
}

for (const stage of $$(".stage.compare")) {
  stage.addEventListener("pointermove", wipe);
  stage.addEventListener("pointerleave", rest);
  stage.addEventListener("pointercancel", rest);
}
for (const stage of $$("button.stage")) {
  const first = Number(stage.dataset.index ?? (stage.classList.contains("compare") ? 1 : 0));
  stage.addEventListener("click", () => open(stage.closest(".card"), first));
}
slider?.addEventListener("input", () => { relabel(); filter(); });
$("#query").addEventListener("input", (event) => { state.query = event.target.value; filter(); });
$("#order")?.addEventListener("change", (event) => { state.order = event.target.value; sort(); });
for (const button of $$(".tools .show button")) {
  button.addEventListener("click", () => {
    state.kind = button.value;
    $$(".tools .show button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    filter();
  });
}
$(".shut").addEventListener("click", () => zoom.close());
zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
zoom.addEventListener("close", () => $(".canvas", zoom).replaceChildren());
zoom.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});
$("#previous").addEventListener("click", () => step(-1));
$("#next").addEventListener("click", () => step(1));
relabel();
