// One image after the other goes to /predict; all text is set as text, never as HTML.
"use strict";

const KEPT = 20;                       // answers on the page
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const busy = document.getElementById("busy");
const message = document.getElementById("message");
const answers = document.getElementById("answers");
let about = null;
let waiting = Promise.resolve();

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
  const test = about.accuracy === null ? "" : `, ${about.accuracy.toFixed(1)} % right in its test`;
  const learned = about.dataset ? `${about.trainer} on ${about.dataset}${test}` : about.trainer;
  document.getElementById("about").textContent =
    `${learned} · backbone ${about.backbone} · ${about.classes.length} classes`;
  document.title = `${about.trainer} ${about.dataset}`.trim();
  document.getElementById("hint").textContent =
    `${about.formats.join(", ")}, up to ${about.max_bytes / 2 ** 20} MiB. Pasting works too.` +
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

function show(image, answer) {
  const card = element("article");
  const picture = element("img");
  picture.src = URL.createObjectURL(image);
  picture.alt = image.name;
  if (Math.max(answer.width, answer.height) < 100) picture.className = "small";
  const words = element("div");
  words.append(element("h2", answer.top[0].class),
    element("p", `${image.name} · ${answer.width} × ${answer.height} · ${Math.round(1000 * answer.seconds)} ms`),
    bars(answer.top));
  card.append(picture, words);
  answers.prepend(card);
  while (answers.children.length > KEPT) {
    URL.revokeObjectURL(answers.lastChild.querySelector("img").src);
    answers.lastChild.remove();
  }
}

async function classify(image) {
  if (about && image.size > about.max_bytes) {
    complain(`${image.name} has ${megabytes(image.size)}; up to ${megabytes(about.max_bytes)} are taken.`);
    return;
  }
  try {
    const type = image.type.startsWith("image/") ? image.type : "application/octet-stream";
    const reply = await fetch("/predict", { method: "POST", body: image, headers: { "Content-Type": type } });
    const answer = await reply.json();
    if (reply.ok) show(image, answer);
    else complain(`${image.name}: ${answer.error}`);
  } catch {
    complain(`${image.name} was not answered. Is tools/predict.py --serve still running?`);
  }
}

function setBusy(on) {
  busy.classList.toggle("on", on);
  busy.setAttribute("aria-hidden", String(!on));
}

function take(files) {
  message.textContent = "";
  setBusy(true);
  for (const image of files) waiting = waiting.then(() => classify(image));
  const last = waiting;
  waiting.then(() => last === waiting && setBusy(false));
}

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
