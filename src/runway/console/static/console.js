// Updates a page that is complete without this script: it fetches the parts that changed and follows the log.
// The server renders everything; nothing here turns data into markup. A hidden page closes its streams.
"use strict";

const main = document.getElementById("main");
const live = document.getElementById("live");
const announcement = document.getElementById("announcement");
const MAX_LOG_LENGTH = 200000; // Characters of a followed log that are kept on the page.
const MAX_PAUSE = 60000;
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]/gu; // Controls, bidi, zero width: shown as escapes, except newline and tab.

const escaped = (letter) => "\n\t".includes(letter) ? letter : "\\u{" + letter.codePointAt(0).toString(16) + "}";
const endState = (line) => line.replace(/\r+$/, "").replace(/^[^]*\r/, "");
const root = document.documentElement;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function show(how, words) {
  live.dataset.how = how;
  live.textContent = words + new Date().toISOString().slice(11, 19) + " UTC";
}

// Replace the parts of the page that differ from the server's, unless the reader selects text in them.
function put(text) {
  const next = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = next.getElementById(part.id);
    const chosen = getSelection();
    if (!fresh || fresh.innerHTML === part.source || (!chosen.isCollapsed && part.contains(chosen.anchorNode))) continue;
    const open = [...part.querySelectorAll("details")].map((one) => [one.id, one.open]);
    const focused = part.contains(document.activeElement) ? path(document.activeElement, part) : null;
    part.source = fresh.innerHTML;
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    for (const [id, was] of open) document.getElementById(id)?.toggleAttribute("open", was);
    if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
  }
  document.title = next.title;
  const now = next.getElementById("main").dataset;
  if (now.state !== main.dataset.state) announcement.textContent = "The job is now " + now.state;
  Object.assign(main.dataset, now);
  return !("finished" in now);
}

function path(element, root) {
  const steps = [];
  for (let at = element; at !== root; at = at.parentElement)
    steps.unshift(`:nth-child(${1 + [...at.parentElement.children].indexOf(at)})`);
  return ":scope > " + steps.join(" > ");
}

let requested = 0, failures = 0, filtered = false;
async function refresh() { // Whether the page changes later; null where it could not be fetched.
  const address = new URL(location.href), number = ++requested;
  if (main.dataset.job) address.searchParams.set("log", "false");
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    const text = await answer.text();
    failures = 0;
    if (number !== requested) return true;
    const changes = put(text);
    if (filtered) announcement.textContent = document.getElementById("count").textContent;
    filtered = false;
    show(changes ? "on" : "finished", changes ? "Live, as of " : "Finished, as of ");
    return changes;
  } catch (error) {
    failures += 1;
    show("off", "Not live (" + error.message + ") since ");
    return null;
  }
}

const visible = () => document.visibilityState === "visible"
  ? Promise.resolve()
  : new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true })).then(visible);
const backoff = (first) => Math.min(first * 2 ** failures, MAX_PAUSE) * (0.8 + 0.4 * Math.random());

async function poll(seconds, on = () => true) {
  for (;;) {
    await pause(backoff(seconds * 1000));
    await visible();
    if (!on() || (await refresh()) === false) return;
  }
}

// A job's events trigger a refresh; the server renders the page. The record of a finished job, with its cost and the
// end of its log, comes last; then the server ends the stream.
function listen(id) {
  let stream = null, finished = false;
  const open = () => {
    if (finished || stream || document.visibilityState !== "visible") return;
    stream = new EventSource("/v1/jobs/" + id + "/events");
    stream.onmessage = async () => { finished = (await refresh()) === false || finished; };
    stream.addEventListener("gone", () => { finished = true; refresh(); });
    stream.onerror = () => { if (finished || stream?.readyState === EventSource.CLOSED) close(); };
  };
  const close = () => { stream?.close(); stream = null; };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" ? open() : close());
  open();
  // Age and usage change between events; this also reopens a rejected stream.
  poll(10, () => { open(); return !finished; });
}

// Shows a followed log: at its end, unless the reader pauses or scrolls up. Then new text waits, so that nothing moves.
function logView(log) {
  const button = document.getElementById("log-follow"), state = document.getElementById("log-state");
  let paused = "", held = "", lines = 0, ended = false, write = () => {};
  const toEnd = () => { log.scrollTop = log.scrollHeight; };
  const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  const set = (how) => {
    paused = how;
    if (!paused && held) write(held);
    if (!paused) [held, lines] = ["", 0], toEnd();
    show();
  };
  const show = () => {
    button.textContent = paused ? "Follow" : "Pause";
    button.hidden = ended && !paused;
    state.textContent = paused ? "Paused" + (lines ? `, ${lines} new line${lines === 1 ? "" : "s"}` : "") : "";
  };
  button.addEventListener("click", () => set(paused ? "" : "button"));
  log.addEventListener("scroll", () => {
    const how = isAtEnd() || (ended && !paused) ? "" : "scroll";
    if (paused !== "button" && paused !== how) set(how);
  });
  new ResizeObserver(() => { if (!paused) toEnd(); }).observe(log);
  return {
    start(writer) { write = writer; held = ""; lines = 0; },
    add(text) {
      if (paused) {
        held = (held + text).slice(-MAX_LOG_LENGTH);
        lines += text.split("\n").length - 1;
        show();
      } else {
        write(text);
        toEnd();
      }
    },
    end() { ended = true; show(); },
  };
}

async function follow(id, log) {
  const view = logView(log);
  const note = document.getElementById("log-note");
  let attempt = null, tries = 0;
  for (;;) {
    await visible();
    const hidden = new AbortController();
    const leave = () => { if (document.visibilityState !== "visible") hidden.abort(); };
    document.addEventListener("visibilitychange", leave);
    try {
      const query = "?follow=true&tail=200" + (attempt ? "&attempt=" + attempt : "");
      const answer = await fetch("/v1/jobs/" + id + "/logs" + query, { signal: hidden.signal, cache: "no-store" });
      if (answer.ok) {
        attempt = Number(answer.headers.get("Runway-Attempt"));
        document.getElementById("log-cut")?.remove();
        const warning = answer.headers.get("Runway-Log-Warning");
        note.textContent = "Following attempt " + attempt + ", from its last 200 lines." + (warning ? " Note: " + warning + "." : "");
        await pass(answer.body, log, view);
        note.textContent = "The log of attempt " + attempt + " has ended.";
        while (Number(main.dataset.attempts) <= attempt && !("finished" in main.dataset)) await pause(1000);
        if (Number(main.dataset.attempts) <= attempt) return view.end();
        attempt += 1;
        tries = 0;
        continue;
      }
      if (answer.status !== 429 && answer.status !== 503) return;
      note.textContent = "Runway is too busy, or the tenant has too many open streams; retrying.";
    } catch (error) {
      if (!hidden.signal.aborted) note.textContent = "The connection to the log broke; retrying.";
    } finally {
      document.removeEventListener("visibilitychange", leave);
    }
    if (!hidden.signal.aborted) await pause(Math.min(2000 * 2 ** tries++, MAX_PAUSE));
  }
}

async function pass(body, log, view) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = new Text(), line = new Text();
  let rest = ""; // The unfinished line. A carriage return starts it again, as in a progress bar.
  view.start((text) => {
    if (!line.isConnected) log.replaceChildren(lines, line);
    const parts = (rest + text).split("\n");
    rest = parts.pop().replace(/^[^]*\r(?=[^\r])/, "").slice(-MAX_LOG_LENGTH / 2);
    lines.appendData(parts.map((part) => endState(part) + "\n").join("").replace(HIDDEN, escaped));
    if (lines.length > MAX_LOG_LENGTH) lines.data = lines.data.slice(-MAX_LOG_LENGTH / 2);
    line.data = endState(rest).replace(HIDDEN, escaped);
  });
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    view.add(value);
  }
}

// Applies the filters without a reload: the address keeps them, and the list is a part that the server renders.
function watchFilters(form) {
  let waiting = null;
  const apply = async () => {
    clearTimeout(waiting);
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const address = "/jobs" + (query.size ? "?" + query : "");
    if (!main.dataset.refresh) return location.assign(address); // A page of older jobs is not updated.
    history.replaceState(null, "", address);
    filtered = true; // Another refresh may come first.
    refresh();
  };
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 250); });
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
}

// Copies the text of an element. Without the clipboard, as on a page without TLS, it selects the text for the reader.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 4000);
});

root.classList.add("has-script");
const filters = document.getElementById("filters");
if (filters) watchFilters(filters);
const log = document.getElementById("log");
document.getElementById("log-wrap")?.addEventListener("change", ({ target }) => log.classList.toggle("nowrap", !target.checked));
if (log) log.scrollTop = log.scrollHeight;
if (main.dataset.refresh) poll(Number(main.dataset.refresh));
if (main.dataset.job && !("finished" in main.dataset)) {
  listen(main.dataset.job);
  if (log) follow(main.dataset.job, log);
}
