// Makes a page that is whole without it live: parts that changed are fetched and put in place, the log is followed.
// The server renders everything; nothing here makes markup of data. Streams are given back while the page is hidden.
"use strict";

const main = document.getElementById("main");
const live = document.getElementById("live");
const said = document.getElementById("said");
const LONGEST_LOG = 200000; // Characters of a followed log that are kept on the page.
const LONGEST_PAUSE = 60000;
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]/gu; // Controls, bidi, zero width: shown as escapes, but for newline and tab.

const escaped = (letter) => "\n\t".includes(letter) ? letter : "\\u{" + letter.codePointAt(0).toString(16) + "}";
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function show(how, words) {
  live.dataset.how = how;
  live.textContent = words + new Date().toISOString().slice(11, 19) + " UTC";
}

// Replace the parts of the page that differ from the server's, unless someone is selecting text in them.
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
  if (now.state !== main.dataset.state) said.textContent = "The job is now " + now.state;
  Object.assign(main.dataset, now);
  return !("over" in now);
}

function path(element, root) {
  const steps = [];
  for (let at = element; at !== root; at = at.parentElement)
    steps.unshift(`:nth-child(${1 + [...at.parentElement.children].indexOf(at)})`);
  return ":scope > " + steps.join(" > ");
}

let asked = 0, failures = 0;
async function refresh() { // Whether what is shown goes on; null where that could not be fetched.
  const address = new URL(location.href), number = ++asked;
  if (main.dataset.job) address.searchParams.set("log", "false");
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    const text = await answer.text();
    failures = 0;
    if (number !== asked) return true;
    const goesOn = put(text);
    show(goesOn ? "on" : "over", goesOn ? "Live, as of " : "Over, as of ");
    return goesOn;
  } catch (error) {
    failures += 1;
    show("off", "Not live (" + error.message + ") since ");
    return null;
  }
}

const visible = () => document.visibilityState === "visible"
  ? Promise.resolve()
  : new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true })).then(visible);
const backoff = (first) => Math.min(first * 2 ** failures, LONGEST_PAUSE) * (0.8 + 0.4 * Math.random());

async function poll(seconds, on = () => true) {
  for (;;) {
    await pause(backoff(seconds * 1000));
    await visible();
    if (!on() || (await refresh()) === false) return;
  }
}

// A job's events say when to look; what there is to see is rendered by the server. Once it is over its record still
// comes, with cost and the end of the log; the server ends the stream after that.
function listen(id) {
  let stream = null, over = false;
  const open = () => {
    if (over || stream || document.visibilityState !== "visible") return;
    stream = new EventSource("/v1/jobs/" + id + "/events");
    stream.onmessage = async () => { over = (await refresh()) === false || over; };
    stream.addEventListener("gone", () => { over = true; refresh(); });
    stream.onerror = () => { if (over || stream?.readyState === EventSource.CLOSED) close(); };
  };
  const close = () => { stream?.close(); stream = null; };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" ? open() : close());
  open();
  // Between events time goes on, and usage with it; this also opens again a stream that was refused.
  poll(10, () => { open(); return !over; });
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
        note.textContent = "Following attempt " + attempt + ", from its last 200 lines.";
        await copy(answer.body, log);
        note.textContent = "The log of attempt " + attempt + " has ended.";
        while (Number(main.dataset.attempts) <= attempt && !("over" in main.dataset)) await pause(1000);
        if (Number(main.dataset.attempts) <= attempt) return;
        attempt += 1;
        tries = 0;
        continue;
      }
      if (answer.status !== 429 && answer.status !== 503) return;
      note.textContent = "The log is not followed, since Runway is too busy or the tenant has too many streams open; trying again.";
    } catch (error) {
      if (!hidden.signal.aborted) note.textContent = "The log broke off; trying again.";
    } finally {
      document.removeEventListener("visibilitychange", leave);
    }
    if (!hidden.signal.aborted) await pause(Math.min(2000 * 2 ** tries++, LONGEST_PAUSE));
  }
}

async function copy(body, log) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = 0;
  log.textContent = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(value.replace(/\r\n?/g, "\n").replace(HIDDEN, escaped));
    kept += value.length;
    if (kept > LONGEST_LOG) {
      log.textContent = log.textContent.slice(-LONGEST_LOG / 2);
      kept = LONGEST_LOG / 2;
    }
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}

const log = document.getElementById("log");
if (log) log.scrollTop = log.scrollHeight;
if (main.dataset.refresh) poll(Number(main.dataset.refresh));
if (main.dataset.job && !("over" in main.dataset)) {
  listen(main.dataset.job);
  if (log) follow(main.dataset.job, log);
}
