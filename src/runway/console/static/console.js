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
    const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
    const focused = part.contains(document.activeElement) ? path(document.activeElement, part) : null;
    part.source = fresh.innerHTML;
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
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

let requested = 0, failures = 0;
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

async function follow(id, log) {
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
        await copy(answer.body, log);
        note.textContent = "The log of attempt " + attempt + " has ended.";
        while (Number(main.dataset.attempts) <= attempt && !("finished" in main.dataset)) await pause(1000);
        if (Number(main.dataset.attempts) <= attempt) return;
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

async function copy(body, log) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = new Text(), line = new Text();
  let rest = ""; // The unfinished line. A carriage return starts it again, as in a progress bar.
  log.replaceChildren(lines, line);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const parts = (rest + value).split("\n");
    rest = parts.pop().replace(/^[^]*\r(?=[^\r])/, "").slice(-MAX_LOG_LENGTH / 2);
    lines.appendData(parts.map((part) => endState(part) + "\n").join("").replace(HIDDEN, escaped));
    if (lines.length > MAX_LOG_LENGTH) lines.data = lines.data.slice(-MAX_LOG_LENGTH / 2);
    line.data = endState(rest).replace(HIDDEN, escaped);
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}

const log = document.getElementById("log");
if (log) log.scrollTop = log.scrollHeight;
if (main.dataset.refresh) poll(Number(main.dataset.refresh));
if (main.dataset.job && !("finished" in main.dataset)) {
  listen(main.dataset.job);
  if (log) follow(main.dataset.job, log);
}
