// One image after the other goes to /predict; all text is set as text, never as HTML.
"use strict";

const KEPT = 20;                       // answers on the page
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const busy = document.getElementById("busy");
const message = document.getElementById("message");
const answers = document.getElementById("answers");
const names = document.getElementById("names");
const clear = document.getElementById("clear");
const examples = document.getElementById("examples");
let about = null;
let waiting = Promise.resolve();
let shown = [];                        // images on the page, newest first as they were given
let classes = "";

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function complain(text) {
  message.textContent += `${text}\n`;
}

function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 1)} MiB`;
}

async function describe() {
  about = await (await fetch("/about")).json();
  const test = about.accuracy === null ? "" : ` · ${about.accuracy.toFixed(1)} % test accuracy`;
  const learned = about.dataset ? `${about.trainer} on ${about.dataset}` : about.trainer;
  document.getElementById("about").textContent =
    `${learned}${test} · backbone ${about.backbone} · ${about.classes.length} classes`;
  document.title = learned;
  examples.hidden = !about.examples;
  document.getElementById("hint").textContent =
    `${about.formats.join(", ")}, up to ${about.max_bytes / 2 ** 20} MiB. Pasting works too. ` +
    "Every image gets one of the classes, whether or not it shows one." +
    (about.local ? " Images stay on this machine." : "");
  const list = document.getElementById("classes");
  list.querySelector("summary").textContent = `All ${about.classes.length} classes`;
  list.querySelector("ul").append(...about.classes.map((name) => element("li", name)));
  list.hidden = false;
}

function bars(top) {
  const list = element("ol");
  for (const { class: name, confidence } of top) {
    const row = element("li");
    const track = element("div", "", "track");
    const bar = element("span");
    bar.style.width = `${100 * confidence}%`;
    track.append(bar);
    track.setAttribute("aria-hidden", "true");
    row.append(element("span", name, "name"), element("span", percent(confidence), "share"), track);
    list.append(row);
  }
  return list;
}

function show(image, answer, before) {
  const card = element("article");
  const picture = element("img");
  picture.addEventListener("error", () => picture.replaceWith(element("div", "no preview", "unseen")));
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  picture.src = URL.createObjectURL(image);
  picture.alt = image.name;
  if (Math.max(answer.width, answer.height) < 100) picture.className = "small";
  const words = element("div");
  words.append(element("h2", answer.top[0].class),
    element("p", `${image.name} · ${answer.width} × ${answer.height} · ${Math.round(1000 * answer.seconds)} ms`),
    bars(answer.top));
  card.append(picture, words);
  if (before) before.after(card);      // images that were given together stay in their order
  else answers.prepend(card);
  while (answers.children.length > KEPT) answers.lastChild.remove();
  clear.hidden = false;
  return card;
}

async function classify(image, before) {
  if (about && image.size > about.max_bytes) {
    complain(`${image.name} is too large (${megabytes(image.size)}); the limit is ${megabytes(about.max_bytes)}.`);
    return before;
  }
  try {
    const type = image.type.startsWith("image/") ? image.type : "application/octet-stream";
    const headers = { "Content-Type": type, "X-Classes": encodeURIComponent(classes) };
    const reply = await fetch("/predict", { method: "POST", body: image, headers });
    const answer = await reply.json();
    if (reply.ok) return show(image, answer, before);
    complain(`${image.name}: ${answer.error}`);
  } catch {
    complain(`${image.name} got no answer. Is tools/predict.py --serve still running?`);
  }
  return before;
}

function setBusy(on) {
  busy.classList.toggle("on", on);
  busy.setAttribute("aria-hidden", String(!on));
}

function take(files) {
  message.textContent = "";
  setBusy(true);
  shown = [...files, ...shown].slice(0, KEPT);
  waiting = waiting.then(async () => {
    let card = null;
    for (const image of files) card = await classify(image, card);
  });
  const last = waiting;
  waiting.then(() => last === waiting && setBusy(false));
}

function empty() {
  answers.replaceChildren();
  message.textContent = "";
  clear.hidden = true;
}

clear.addEventListener("click", () => {
  shown = [];
  empty();
});
document.getElementById("other").addEventListener("submit", (event) => {
  event.preventDefault();
  classes = names.value;
  const again = shown;
  shown = [];
  empty();
  if (again.length) take(again);
});
examples.addEventListener("click", async () => {
  const files = [];
  for (let i = 0; i < about.examples; i++) {
    const content = await (await fetch(`/example/${i}`)).blob();
    files.push(new File([content], `example ${i + 1}`, { type: content.type }));
  }
  take(files);
});
file.addEventListener("change", () => {
  take([...file.files]);
  file.value = "";                     // the same file can be chosen again
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take([...event.clipboardData.files]);
});
describe().catch(() => {
  document.getElementById("about").textContent = "The server does not answer.";
});
