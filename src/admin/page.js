// Shows /v1/status and /v1/events, once a second. Text only ever goes in as text: what a backend said can never run here.
"use strict";

const PERIOD_MS = 1000;
const EVENTS_SHOWN = 30;
const find = (id) => document.getElementById(id);

let token = sessionStorage.getItem("token") || "";
let timer = 0;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

function duration(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

function latency(us) {
  return us < 1000 ? `${us} µs` : `${(us / 1000).toFixed(us < 10000 ? 1 : 0)} ms`;
}

const HEALTH_CLASS = { healthy: "good", degraded: "warn", critical: "bad", failed: "bad", unknown: "dim" };
const STATUS_CLASS = { active: "good", recovered: "good", failing_over: "bad", failed_over: "warn", recovering: "warn" };

function backendCard(backend) {
  const score = backend.score === null ? "–" : Math.round(backend.score);
  const card = element("div", `backend ${backend.health}${backend.active ? " active" : ""}`,
    element("div", "title",
      element("b", "", backend.name),
      element("span", HEALTH_CLASS[backend.health], backend.health),
      backend.active ? element("span", "", "serves now") : null,
      element("span", `score ${HEALTH_CLASS[backend.health] || ""}`, String(score))));
  const facts = [`${backend.role} at ${backend.address}`];
  if (backend.latency) facts.push(`p50 ${latency(backend.latency.p50_us)}`, `p99 ${latency(backend.latency.p99_us)}`);
  facts.push(`${backend.in_flight} in flight`, `${backend.links} links`);
  if (backend.breaker !== "closed") facts.push(`breaker ${backend.breaker.replace("_", " ")}`);
  const missed = backend.divergence;
  facts.push(missed.state === "keys" ? `missed ${missed.keys} keys` : `content ${missed.state}`);
  card.append(element("div", "facts", facts.join(" · ")));
  const notes = element("ul", "");
  for (const reason of backend.reasons) notes.append(element("li", "", reason));
  if (backend.probes.last_error) notes.append(element("li", "", `last probe: ${backend.probes.last_error}`));
  if (!backend.enterable && !backend.active) {
    const line = element("li", "warn", `cannot be entered: ${backend.why_not || "unknown"} `);
    if (backend.mend) line.append(element("code", "", backend.mend));
    notes.append(line);
  }
  if (notes.childElementCount) card.append(notes);
  return card;
}

function groupSection(group, alone) {
  const words = STATUS_CLASS[group.status] || "";
  const headline = group.active
    ? element("div", "headline", `${group.active} serves `, element("span", words, group.status.replace("_", " ")))
    : element("div", "headline bad", `no backend serves (${group.availability.replace("_", " ")})`);
  const title = `${alone ? "" : `${group.name}: `}${group.listen} · epoch ${group.epoch} · ${group.clients} clients · since ${group.since.replace("T", " ").slice(0, 19)} UTC`;
  const section = element("section", "", headline, element("div", "dim", title));
  const cards = element("div", "backends");
  for (const backend of group.backends) cards.append(backendCard(backend));
  for (const note of group.notes || []) section.append(element("div", "warn", note));
  section.append(element("p", ""), cards);
  return section;
}

function showStatus(status) {
  document.title = status.groups.map((group) => `${group.active || "none"} ${group.status}`).join(", ") + " · Standin";
  find("process").textContent = `${status.version} · process ${status.process_id} · up ${duration(status.uptime_seconds)} · ${status.clients} clients${status.draining ? " · draining" : ""}`;
  find("groups").replaceChildren(...status.groups.map((group) => groupSection(group, status.groups.length === 1)));
}

const SEVERITY_CLASS = { info: "", warning: "warn", error: "bad" };

function showEvents(report) {
  const lines = report.events.reverse().map((event) => element("li", "",
    element("time", "", event.at.slice(5, 19).replace("T", " ")),
    element("span", `kind ${SEVERITY_CLASS[event.severity] || ""}`, event.kind.replaceAll("_", " ")),
    element("span", "text", event.message)));
  find("events").replaceChildren(...lines);
}

async function fetchJson(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (response.status === 401) {
    find("login").hidden = false;
    throw new Error("the token is needed");
  }
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || `status ${response.status}`);
  find("login").hidden = true;
  return body;
}

async function refresh() {
  clearTimeout(timer);
  const contact = find("contact");
  try {
    const [status, events] = await Promise.all([fetchJson("v1/status"), fetchJson(`v1/events?limit=${EVENTS_SHOWN}`)]);
    showStatus(status);
    showEvents(events);
    contact.textContent = "live";
    contact.className = "good";
  } catch (error) {
    contact.textContent = `no contact: ${error.message}`;
    contact.className = "bad";
  }
  find("groups").classList.toggle("stale", contact.className === "bad");
  timer = setTimeout(refresh, PERIOD_MS);
}

find("login").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  token = find("token").value;
  sessionStorage.setItem("token", token);
  refresh();
});

refresh();
