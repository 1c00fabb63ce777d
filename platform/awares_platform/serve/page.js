// The endpoint's web page. It inserts foreign text only as text nodes, to prevent script injection.
const $ = (id) => document.getElementById(id);
const MOST_HISTORY = 30;
const MOST_TRIES = 5;
const LONG_ANSWER = 60;
const COLUMNS = ["auto", "full"];

let picked = null; // The image that the user chose: {blob, name, url, data, element, low}.
let model = "awares";
let running = null; // The AbortController of the question in progress.
let shown = null; // The entry of the history that the page shows.
let key = sessionStorage.getItem("awares-key") ?? "";
const entries = [];

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const say = (text) => { $("status").textContent = text; };
const complain = (text) => {
  $("problem").textContent = text;
  $("problem").hidden = !text;
};
const percent = (share) => `${Math.round(share * 100)} %`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// Requests

class Refused extends Error {
  // `wait` is the number of seconds after which another try may succeed, or null.
  constructor(message, wait = null) {
    super(message);
    this.wait = wait;
  }
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The endpoint cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const wait = response.headers.get("retry-after");
  const reason = body.error?.message ?? `The endpoint answers with status ${response.status}.`;
  if (response.status === 401) askForKey(Boolean(key));
  throw new Refused(wait ? `${reason} Try again in ${wait} s.` : reason, wait);
}

// Gets data for the page itself. If the endpoint is busy, tries again later.
async function read(path) {
  for (let tries = MOST_TRIES; ; tries--) {
    try {
      return await call(path);
    } catch (error) {
      if (error.wait === null || tries <= 1) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.min(error.wait, 5) * 1000));
    }
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

function askForKey(wrong) {
  $("key-form").hidden = false;
  $("key-note").textContent = wrong
    ? "The endpoint refuses this key. Enter another one."
    : "This endpoint needs a key. The key stays in this tab.";
  $("key").focus();
}

async function connect() {
  try {
    const models = await (await read("v1/models")).json();
    model = models.data[0].id;
    $("model").textContent = `model ${model}`;
    $("key-form").hidden = true;
    complain("");
  } catch (error) {
    if ($("key-form").hidden) complain(error.message);
  }
}

// Images

const readAs = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

async function pick(blob, name) {
  const image = { blob, name, url: URL.createObjectURL(blob), element: null, low: null };
  try {
    const data = await readAs(blob);
    // If the browser does not know the file's type, leave the type out of the data: URL.
    image.data = blob.type ? data : data.replace(/^data:[^,]*,/, "data:;base64,");
  } catch {
    complain(`${name} cannot be read.`);
    return;
  }
  const drawn = new Image();
  drawn.src = image.url;
  image.element = await drawn.decode().then(() => drawn, () => null);
  picked = image;
  complain("");
  $("preview").hidden = !image.element;
  if (image.element) $("preview").src = image.url;
  $("drop-title").textContent = name;
  $("drop-note").textContent = image.element
    ? "Choose, drop or paste another image"
    : "This browser cannot show the format. The endpoint may read it.";
  say(`Image chosen: ${name}`);
}

// Gets the low-resolution view from the endpoint, so that it has the pixels that the policy sees.
function lowView(image) {
  image.low ??= call("low-view", { method: "POST", body: image.blob })
    .then((response) => response.blob()).then(URL.createObjectURL)
    .catch(() => { image.low = null; return image.url; });
  return image.low;
}

// One of the two columns: the answer with crops (auto), or at full resolution (full)

const part = (column, name) => $(column).querySelector(`.${name}`);

function clear(column) {
  for (const crop of $(column).querySelectorAll(".crop")) crop.remove();
  part(column, "stage").querySelector("img").removeAttribute("src");
  part(column, "tokens").querySelector("b").textContent = "";
  part(column, "tokens").querySelector("span").textContent = "";
  part(column, "meter").replaceChildren();
  part(column, "facts").replaceChildren();
}

async function drawImage(column, entry) {
  const whole = entry.image.element;
  if (whole) shape(column, whole);
  const low = column === "auto" || !whole;
  const url = low ? await lowView(entry.image) : entry.image.url;
  if (shown !== entry) return;
  const drawn = part(column, "stage").querySelector("img");
  drawn.src = url;
  await drawn.decode().catch(() => {});
  if (!whole) shape(column, drawn);
  showPixels(drawn, drawn.naturalWidth);
}

// Gives the column's stage the aspect ratio of the image. Crops are placed on it in percent.
function shape(column, { naturalWidth, naturalHeight }) {
  const ratio = naturalWidth / naturalHeight || 1;
  part(column, "stage").style.aspectRatio = String(ratio);
  part(column, "stage").style.maxWidth = `${34 * ratio}rem`;
}

// Turns smoothing off for an enlarged picture, because it would hide the low resolution.
const showPixels = (picture, width) =>
  picture.classList.toggle("coarse", width < picture.clientWidth);

// Names a region by its position, because the environments have different names for regions.
function place([left, top, right, bottom]) {
  const side = (from, to, low, high) => {
    if (from < 0.02 && to > 0.98) return "";
    return to < 0.55 ? low : from > 0.45 ? high : "center";
  };
  const words = [side(top, bottom, "top", "bottom"), side(left, right, "left", "right")];
  return [...new Set(words.filter(Boolean))].join(" ") || "whole image";
}

function drawCrop(entry, view) {
  const [left, top, right, bottom] = view.fraction;
  const frame = element("div", "crop");
  Object.assign(frame.style, {
    left: `${left * 100}%`, top: `${top * 100}%`,
    width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%`,
  });
  frame.append(element("span", "", place(view.fraction)));
  part("auto", "stage").append(frame);
  if (!entry.image.element) return;
  const canvas = pixels(entry.image.element, view.box, frame.clientWidth);
  frame.prepend(canvas);
  showPixels(canvas, canvas.width);
}

// Draws a crop at the size in which the screen shows it, because browsers shrink a canvas badly.
function pixels(image, [left, top, right, bottom], shownWidth) {
  const canvas = element("canvas");
  const [width, height] = [right - left, bottom - top];
  const scale = Math.min(1, (shownWidth * devicePixelRatio) / width);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, left, top, width, height, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function drawCrops(entry) {
  const crops = entry.auto.views.filter((view) => view.region !== null && view.image === 0);
  const drawn = part("auto", "stage").querySelectorAll(".crop").length;
  for (const view of crops.slice(drawn)) drawCrop(entry, view);
  const names = crops.map((view) => place(view.fraction));
  const text = names.length ? `, with the crops ${names.join(", ")}` : "";
  part("auto", "stage").setAttribute("aria-label", `The small view of the image${text}`);
}

function drawAnswer(column, run) {
  const answer = part(column, "answer");
  const text = run.error ?? (run.answer || (run.done ? "No answer" : run.note));
  answer.textContent = text;
  answer.classList.toggle("failed", Boolean(run.error));
  answer.classList.toggle("waiting", !run.error && !run.answer);
  answer.classList.toggle("long", text.length > LONG_ANSWER);
}

function drawFigures(column, run) {
  const figures = run.figures;
  if (!figures) return;
  const tokens = part(column, "tokens");
  tokens.querySelector("b").textContent = count(figures.visual_tokens, "visual token");
  tokens.querySelector("span").textContent =
    `${percent(figures.rtr_token)} of ${figures.full_tokens.toLocaleString("en")}`;
  const most = Math.max(figures.full_tokens, figures.visual_tokens, 1);
  part(column, "meter").replaceChildren(...figures.views.map((view) => {
    const bar = element("i", view.region === null ? "" : "later");
    bar.style.width = `${(view.visual_tokens / most) * 100}%`;
    return bar;
  }));
  const facts = [
    ["Time", `${Math.round(figures.latency_s * 1000)} ms`],
    ["Rounds", String(figures.turns)],
    ...(figures.weight_version ? [["Weights", String(figures.weight_version)]] : []),
    ...(figures.recoveries.length
      ? [["Detours", figures.recoveries.join(", ").replaceAll("_", " ")]] : []),
  ];
  part(column, "facts").replaceChildren(...facts.map(([name, value]) => {
    const fact = element("div");
    fact.append(element("dt", "", name), element("dd", "", value));
    return fact;
  }));
}

function draw(column, entry) {
  if (shown !== entry || !entry[column]) return;
  if (column === "auto") drawCrops(entry);
  drawAnswer(column, entry[column]);
  drawFigures(column, entry[column]);
}

// A question

async function play(column, entry, signal) {
  const run = entry[column];
  const content = [
    { type: "image_url", image_url: { url: entry.image.data } },
    { type: "text", text: entry.question },
  ];
  const body = JSON.stringify({
    model, stream: true, awares: { mode: column }, messages: [{ role: "user", content }],
  });
  const headers = { "content-type": "application/json" };
  run.note = column === "auto" ? "Looking at the small view" : "Looking at every pixel";
  draw(column, entry);
  try {
    const options = { method: "POST", body, headers, signal };
    const response = await call("v1/chat/completions", options);
    for await (const event of events(response)) take(column, entry, event);
  } catch (error) {
    run.error = error.name === "AbortError" ? "Stopped"
      : error instanceof Refused ? error.message : "The connection broke off.";
  }
  run.done = true;
  draw(column, entry);
}

function take(column, entry, event) {
  const run = entry[column];
  if (event.error) throw new Refused(event.error.message);
  const choice = event.choices?.[0];
  if (event.awares?.event === "crops") {
    run.views.push(...event.awares.views);
    const names = event.awares.views.map((view) => place(view.fraction)).join(", ");
    run.note = `Looking closer: ${names}`;
    say(`The policy asks for a closer look: ${names}`);
  } else if (event.awares) {
    run.figures = event.awares;
    run.views = event.awares.views;
  }
  run.answer += choice?.delta?.content ?? "";
  draw(column, entry);
}

const fresh = () => ({ views: [], answer: "", note: "Waiting", error: null, figures: null,
  done: false });

async function ask() {
  const question = $("question").value.trim();
  if (!picked || !question) {
    complain(picked ? "Type a question first." : "Choose an image first.");
    (picked ? $("question") : $("file")).focus();
    return;
  }
  complain("");
  running?.abort();
  const control = running = new AbortController();
  const both = $("compare").checked;
  const entry = { image: picked, question, auto: fresh(), full: both ? fresh() : null };
  entries.unshift(entry);
  entries.splice(MOST_HISTORY);
  busy(true);
  show(entry);
  $("result").scrollIntoView({ block: "nearest" });
  say("The policy looks at the small view.");
  // Ask for one column after the other. In parallel, each would slow the other down.
  await play("auto", entry, control.signal);
  // A click on an example may have replaced this question meanwhile.
  if (running !== control) return;
  announce("With crops", entry.auto);
  if (both && !control.signal.aborted) {
    await play("full", entry, control.signal);
    announce("Full resolution", entry.full);
  }
  if (running !== control) return;
  running = null;
  busy(false);
  if (shown === entry) $("verdict").textContent = verdict(entry);
  list();
}

function announce(title, run) {
  const figures = run.figures;
  say(run.error ? `${title}: ${run.error}` : `${title}: ${run.answer}. ` + (figures
    ? `${count(figures.visual_tokens, "visual token")} of ${figures.full_tokens}.` : ""));
}

function verdict({ auto, full }) {
  if (!auto.figures || !full?.figures) return "";
  const same = auto.answer.trim().toLowerCase() === full.answer.trim().toLowerCase();
  const spent = auto.figures.visual_tokens / Math.max(full.figures.visual_tokens, 1);
  return `${same ? "The same answer" : "Another answer"} at ${percent(spent)} of the visual tokens.`;
}

function busy(is) {
  $("ask").disabled = is;
  $("stop").hidden = !is;
  $("result").setAttribute("aria-busy", String(is));
}

function show(entry) {
  shown = entry;
  $("result").hidden = false;
  $("asked").textContent = entry.question;
  $("full").hidden = !entry.full;
  $("result").querySelector(".columns").classList.toggle("single", !entry.full);
  $("verdict").textContent = verdict(entry);
  part("full", "stage").setAttribute("aria-label", "The image at full resolution");
  for (const column of COLUMNS) {
    if (!entry[column]) continue;
    clear(column);
    drawImage(column, entry);
    draw(column, entry);
  }
  list();
}

// The history and the examples

function list() {
  $("history").hidden = entries.length < 2;
  $("history-list").replaceChildren(...entries.map((entry) => {
    const row = element("button");
    row.type = "button";
    const said = element("span", "said");
    said.append(element("b", "", entry.question), entry.auto.error ?? entry.auto.answer);
    const share = entry.auto.figures ? percent(entry.auto.figures.rtr_token) : "";
    const picture = element("img");
    picture.alt = "";
    if (entry.image.element) picture.src = entry.image.url;
    row.append(picture, said, element("span", "note", share && `${share} of the tokens`));
    if (entry === shown) row.setAttribute("aria-current", "true");
    row.addEventListener("click", () => { show(entry); $("result").focus(); });
    const item = element("li");
    item.append(row);
    return item;
  }));
}

async function examples() {
  const found = await read("examples").then((response) => response.json(), () => []);
  // Load one image after the other, so that the page takes few places in the endpoint's queue.
  for (const { image, question } of found) {
    const blob = await read(image).then((response) => response.blob(), () => null);
    if (blob) $("example-list").append(example(blob, question));
    $("examples").hidden = !$("example-list").childElementCount;
  }
}

function example(blob, question) {
  const choice = element("button");
  choice.type = "button";
  const picture = element("img");
  picture.src = URL.createObjectURL(blob);
  picture.alt = "";
  choice.append(picture, question);
  choice.addEventListener("click", async () => {
    $("question").value = question;
    await pick(blob, "Example");
    ask();
  });
  const item = element("li");
  item.append(choice);
  return item;
}

// Handlers of the user's actions

const imageOf = (transfer) => [...(transfer?.files ?? [])][0];

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) pick(file, file.name);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && imageOf(event.dataTransfer);
    if (file) pick(file, file.name);
  });
}
document.addEventListener("paste", (event) => {
  const file = imageOf(event.clipboardData);
  if (!file) return;
  event.preventDefault();
  pick(file, file.name || "Pasted image");
});
$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask-form").requestSubmit();
});
$("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) ask();
});
$("stop").addEventListener("click", () => running?.abort());
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem("awares-key", key);
  connect();
});

connect();
examples();
