// A stop-gap page: photo and note in, captions out as they are written. Everything shown goes through textContent.
const $ = (id) => document.getElementById(id);
let photo = null;
let abort = null;
let trends = new Map(); // trend id -> trend
let captions = []; // candidate -> { text, marks: [{ start, end, trend_id }], item }

function element(name, text, parent, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  parent?.append(made);
  return made;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function choose(file) {
  if (!file) return;
  photo = file;
  URL.revokeObjectURL($("preview").src);
  $("preview").src = URL.createObjectURL(file);
  $("preview").alt = `Preview of ${file.name}`;
  $("preview").hidden = false;
  $("photo").required = false;
}

$("photo").addEventListener("change", () => choose($("photo").files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}
$("stop").addEventListener("click", () => abort?.abort());
$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!photo) return;
  abort = new AbortController();
  trends = new Map();
  captions = [];
  $("captions").replaceChildren();
  $("evidence").hidden = true;
  $("label").textContent = "";
  $("write").disabled = true;
  $("stop").hidden = false;
  say("Looking at the photo …");
  try {
    await write(abort.signal);
  } catch (error) {
    say(error.name === "AbortError" ? "Stopped." : error.message || "The server can't be reached.", error.name !== "AbortError");
  } finally {
    $("write").disabled = false;
    $("stop").hidden = true;
  }
});

async function write(signal) {
  const body = { image: await base64(photo), candidates: Number($("candidates").value) };
  if ($("note").value.trim()) body.note = $("note").value;
  const answer = await fetch("/api/v1/caption/stream", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    throw new Error(told?.message ?? `The server answered ${answer.status}.`);
  }
  let ended = false;
  for await (const event of events(answer.body)) {
    show(event);
    ended = event.type === "done" || event.type === "failed";
  }
  if (!ended) throw new Error("The connection broke off. Try again.");
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The photo can't be read."));
    reader.readAsDataURL(file);
  });
}

// Server-sent events of a fetch: blocks end with an empty line, their data is one line of JSON.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = (rest + part.value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

function show(event) {
  if (event.type === "trends") {
    for (const found of event.trends) trends.set(found.trend.id, found.trend);
    const unjudged = event.judged === "failed" && "The model could not look at the trends before they were offered";
    $("label").textContent = [event.snapshot?.label, event.snapshot?.warning, event.reason, unjudged].filter(Boolean).join(". ");
    say("Writing …");
  } else if (event.type === "delta") {
    caption(event.candidate).text += event.text;
    draw(event.candidate);
  } else if (event.type === "highlight") {
    caption(event.candidate).marks.push(event);
    draw(event.candidate);
  } else if (event.type === "candidate_done") {
    caption(event.candidate).confidence = event.confidence;
  } else if (event.type === "done") {
    for (const { confidence, item } of event.draft ? [] : captions) {
      // Of a draft it says nothing: the grammar forces wording that the model would not have chosen.
      if (confidence) element("span", ` wording confidence ${Math.round(confidence * 100)} %`, item, "confidence");
    }
    say(`${event.draft ? "A draft by the small built-in model" : "Written"} (${event.model}), ${event.timings.total.toFixed(1)} s.`);
  } else if (event.type === "failed") {
    say(event.message, true);
  }
}

function caption(number) {
  for (let n = captions.length; n <= number; n++) {
    captions.push({ text: "", marks: [], item: element("li", "", $("captions")) });
  }
  return captions[number];
}

// Offsets count code points, JavaScript strings count UTF-16 units.
function draw(number) {
  const { text, marks, item } = caption(number);
  const points = Array.from(text);
  let at = 0;
  item.replaceChildren();
  for (const mark of marks.toSorted((a, b) => a.start - b.start)) {
    item.append(points.slice(at, mark.start).join(""));
    const word = element("button", points.slice(mark.start, mark.end).join(""), element("mark", "", item));
    word.type = "button";
    word.addEventListener("click", () => explain(trends.get(mark.trend_id)));
    at = mark.end;
  }
  item.append(points.slice(at).join(""));
}

function explain(trend) {
  if (!trend) return;
  const box = $("evidence");
  box.replaceChildren();
  box.hidden = false;
  element("h2", trend.phrase, box);
  if (trend.summary) element("p", trend.summary, box);
  element("p", `${trend.stage}, last seen ${new Date(trend.last_seen).toLocaleString()}`, box);
  const list = element("ul", "", box);
  for (const seen of trend.evidence) {
    const item = element("li", `${seen.source}: `, list);
    // Addresses come from feeds: only ordinary web links become links.
    if (/^https?:\/\//i.test(seen.url ?? "")) {
      const link = element("a", seen.title, item);
      link.href = seen.url;
      link.rel = "noopener noreferrer nofollow";
      link.target = "_blank";
    } else {
      item.append(seen.title);
    }
  }
}
