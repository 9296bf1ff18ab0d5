// The page: takes what the feed tells, keeps the latest of it, and draws it. Text goes in by textContent alone.
const $ = (id) => document.getElementById(id);
const MOST_CALLS = 10000, MOST_LINES = 2000, SHOWN_LINES = 500, SHOWN_ACTORS = 200, MOST_ROWS = 26;

const seen = { actors: [], byId: new Map(), pulse: null, calls: [], lines: [], memory: new Map(), skew: 0, rates: [] };
const dirty = new Set();

// -- small helpers -------------------------------------------------------------------------------------------------

function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && key !== "role") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function svg(tag, props = {}, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(props)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const seconds = (s) => s < 1e-3 ? `${(s * 1e6).toFixed(0)} µs` : s < 1 ? `${(s * 1e3).toPrecision(3)} ms` : s < 120 ? `${s.toFixed(1)} s` : s < 7200 ? `${(s / 60).toFixed(0)} min` : `${(s / 3600).toFixed(1)} h`;
const bytes = (b) => b < 1e3 ? `${b} B` : b < 1e6 ? `${(b / 1e3).toFixed(0)} kB` : b < 1e9 ? `${(b / 1e6).toFixed(0)} MB` : `${(b / 1e9).toFixed(1)} GB`;
const count = (n) => n < 1e4 ? String(n) : n < 1e6 ? `${(n / 1e3).toFixed(1)}k` : `${(n / 1e6).toFixed(1)}M`;
const clock = (at) => new Date(at * 1e3).toTimeString().slice(0, 8) + "." + String(Math.floor(at * 1e3 % 1e3)).padStart(3, "0");
const nameOf = (actor) => actor.name || actor.id.replace("actor-", "");
const ESCAPES = /\x1b(\[[0-9;?]*[ -\/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)/g;  // colours of terminals, links, titles
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Rows are kept and changed in place: what has the focus, or is being read, stays where it is.
function rows(body, items, key, fill, empty, columns) {
  const kept = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = items.map((item) => {
    const id = key(item);
    let row = kept.get(id);
    if (!row) { row = document.createElement("tr"); row.dataset.key = id; }
    kept.delete(id);
    fill(row, item);
    return row;
  });
  for (const row of kept.values()) row.remove();
  if (!wanted.length) {
    const row = document.createElement("tr");
    row.dataset.key = "";
    row.append(make("td", { colSpan: columns, class: "none", textContent: empty }));
    wanted.push(row);
  }
  wanted.forEach((row, place) => { if (body.children[place] !== row) body.insertBefore(row, body.children[place] || null); });
}

function cells(row, values) {
  while (row.children.length < values.length) row.append(document.createElement("td"));
  values.forEach((value, place) => {
    const cell = row.children[place];
    if (value instanceof Node) { if (!cell.firstChild || !cell.firstChild.isEqualNode(value) || value.dataset?.live) cell.replaceChildren(value); }
    else if (cell.textContent !== String(value)) cell.textContent = value;
  });
}

const badge = (state) => make("span", { class: `state ${state}`, textContent: state === "PENDING_CREATION" ? "PENDING" : state });

// -- what the feed tells -------------------------------------------------------------------------------------------

const takes = {
  hello(data) {
    $("cluster").textContent = data.cluster;
    document.title = `actors – ${data.cluster}`;
    seen.calls = []; seen.lines = []; seen.memory.clear();
    live("on", "live");
  },
  actors(data) {
    seen.actors = data;
    seen.byId = new Map(data.map((actor) => [actor.id, actor]));
    mark("actors", "topology", "sums");
  },
  pulse(data) {
    seen.pulse = data;
    seen.skew = data.at - Date.now() / 1e3;
    for (const node of data.nodes) {
      const past = seen.memory.get(node.id) || [];
      past.push([node.memory_used / node.memory, node.load / node.cpus]);
      if (past.length > 120) past.shift();
      seen.memory.set(node.id, past);
    }
    const total = data.methods.reduce((sum, row) => sum + row.count, 0);
    seen.rates.push([data.at, total]);
    if (seen.rates.length > 6) seen.rates.shift();
    live("on", "live");
    mark("actors", "topology", "nodes", "open", "methods", "groups", "models", "alerts", "sums");
  },
  events(data) {
    for (const event of data) {
      if (event.kind === "CallEnded") seen.calls.push(event);
      else if (event.kind === "LogPrinted") seen.lines.push({ ...event, text: event.text.replace(ESCAPES, "") });
    }
    if (seen.calls.length > MOST_CALLS) seen.calls.splice(0, seen.calls.length - MOST_CALLS);
    if (seen.lines.length > MOST_LINES) seen.lines.splice(0, seen.lines.length - MOST_LINES);
    mark("logs", "latest");
  },
  gone(data) { live("off", `not there: ${data.why}`); },
};

function live(state, text) {
  if ($("live").dataset.state !== state || $("live").textContent !== text) { $("live").dataset.state = state; $("live").textContent = text; }
}

function connect() {
  const feed = new EventSource("live");
  for (const kind of Object.keys(takes)) feed.addEventListener(kind, (message) => takes[kind](JSON.parse(message.data)));
  feed.onerror = () => live("off", "the dashboard has ended: start it again");
}

// -- drawing -------------------------------------------------------------------------------------------------------

function mark(...parts) {
  if (!dirty.size) requestAnimationFrame(draw);
  parts.forEach((part) => dirty.add(part));
}

function draw() {
  const parts = [...dirty];
  dirty.clear();
  for (const part of parts) if (draws[part] && (seen.pulse || part === "logs")) draws[part]();
}

const draws = {
  sums() {
    const alive = seen.actors.filter((actor) => actor.state !== "DEAD").length;
    $("sum-nodes").textContent = seen.pulse.nodes.length;
    $("sum-actors").textContent = count(alive);
    $("sum-open").textContent = count(seen.pulse.open);
    const [first, last] = [seen.rates[0], seen.rates.at(-1)];
    $("sum-rate").textContent = last[0] > first[0] ? count(Math.round((last[1] - first[1]) / (last[0] - first[0]))) : "0";
  },

  alerts() {
    const alerts = seen.pulse.alerts;
    $("alerts").hidden = !alerts.length;
    $("alerts").querySelector("ul").replaceChildren(...alerts.map((alert) => make("li", {},
      make("b", { class: alert.level, textContent: alert.level === "bad" ? "problem" : "look" }),
      make("span", {}, `${alert.what} `, make("em", { textContent: alert.do })),
      ...(alert.actor ? [make("button", { type: "button", textContent: "Open", onclick: () => open(alert.actor) })] : []))));
  },

  topology() {
    const box = $("topology"), nodes = seen.pulse.nodes;
    const width = Math.max(320, box.clientWidth), height = box.clientHeight || 320;
    box.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const on = new Map(nodes.map((node) => [node.name, []]));
    for (const actor of seen.actors) if (actor.state !== "DEAD" && on.has(actor.node)) on.get(actor.node).push(actor);
    const most = Math.max(1, Math.floor(width / 150));
    const columns = Math.min(most, nodes.length <= 3 ? nodes.length || 1 : Math.ceil(Math.sqrt(nodes.length * width / height / 1.4)));
    const lines = Math.ceil(nodes.length / columns) || 1;
    const w = Math.min(260, width / columns - 28), h = Math.min(190, height / lines - 16);
    const at = new Map(nodes.map((node, place) => [node.name, [
      (place % columns + .5) * width / columns, (Math.floor(place / columns) + .5) * height / lines]]));
    const drawn = [];
    const traffic = new Map(), since = seen.pulse.at - 10;
    for (let i = seen.calls.length - 1; i >= 0 && seen.calls[i].at > since; i--) {
      const call = seen.calls[i], from = seen.byId.get((call.caller_name.match(/\((actor-\w+)\)/) || [])[1]);
      if (from && from.node !== call.node) { const pair = [from.node, call.node].sort().join("\n"); traffic.set(pair, (traffic.get(pair) || 0) + 1); }
    }
    for (let i = 0; i < nodes.length && nodes.length <= 24; i++) for (let j = i + 1; j < nodes.length; j++) {
      const [a, b] = [at.get(nodes[i].name), at.get(nodes[j].name)];
      const flow = traffic.get([nodes[i].name, nodes[j].name].sort().join("\n")) || 0;
      const line = svg("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], class: flow ? "busy" : "" });
      if (flow) line.setAttribute("stroke-width", 1.5 + Math.min(6, Math.log2(1 + flow)));
      drawn.push(line);
    }
    for (const node of nodes) {
      const [x, y] = at.get(node.name), here = on.get(node.name);
      drawn.push(svg("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 12, class: "node" }));
      drawn.push(svg("text", { x: x - w / 2 + 12, y: y - h / 2 + 20, "font-weight": 600 }, node.name.slice(0, Math.floor(w / 8))));
      const ping = node.peers.map((peer) => peer[1]).filter((t) => t !== null);
      const link = ping.length && w > 170 ? `, links ${seconds(Math.max(...ping))}` : "";
      drawn.push(svg("text", { x: x - w / 2 + 12, y: y - h / 2 + 35, class: "sub" }, `${here.length} actor${here.length === 1 ? "" : "s"}${link}`));
      const inside = w - 24, room = h - 54;
      let r = 8;
      while (r > 2 && Math.floor(inside / (2.6 * r)) * Math.floor(room / (2.6 * r)) < here.length) r -= .5;
      const across = Math.max(1, Math.floor(inside / (2.6 * r)));
      here.slice(0, across * Math.max(1, Math.floor(room / (2.6 * r)))).forEach((actor, i) => {
        const [waits, runs] = seen.pulse.pending[actor.id] || [0, 0];
        const dot = svg("circle", {
          cx: x - w / 2 + 12 + r + (i % across) * 2.6 * r, cy: y - h / 2 + 48 + r + Math.floor(i / across) * 2.6 * r, r,
          class: `${actor.state === "ALIVE" && runs ? "busy" : actor.state}${waits > 10 ? " full" : ""}` });
        dot.append(svg("title", {}, `${actor.class} ${nameOf(actor)}: ${runs} running, ${waits} waiting`));
        dot.addEventListener("click", () => open(actor.id));
        drawn.push(dot);
      });
    }
    if (!nodes.length) drawn.push(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "sub" }, "no node answers"));
    box.replaceChildren(...drawn);
    box.setAttribute("aria-label", nodes.map((node) => `${node.name}: ${on.get(node.name).length} actors`).join("; "));
  },

  nodes() {
    const meter = (label, value, share) => {
      const fill = make("i");
      fill.style.width = `${Math.min(100, Math.max(0, 100 * share)).toFixed(1)}%`;
      return make("div", { class: `meter${share > .92 ? " hot" : ""}` }, make("span", { textContent: label }), make("b", { textContent: value }), make("div", {}, fill));
    };
    $("nodes").replaceChildren(...seen.pulse.nodes.map((node) => {
      const past = seen.memory.get(node.id) || [];
      const spark = svg("svg", { class: "spark", viewBox: "0 0 120 30", preserveAspectRatio: "none", role: "img", "aria-label": `Memory of ${node.name} over the last two minutes` });
      const path = past.map(([m], i) => `${i ? "L" : "M"}${(120 - past.length + i).toFixed(1)} ${(29 - 27 * m).toFixed(1)}`).join("");
      if (past.length > 1) spark.append(svg("path", { class: "area", d: `${path}L119 30L${120 - past.length} 30Z` }), svg("path", { d: path }));
      return make("article", {},
        make("h3", {}, node.name, make("small", { textContent: `${node.chip || ""}  ${node.address || "this machine alone"}` })),
        make("div", { class: "meters" },
          meter("Memory", `${(node.memory_used / 1e9).toFixed(1)} / ${(node.memory / 1e9).toFixed(0)} GB`, node.memory_used / node.memory),
          meter("CPUs taken", `${((node.resources.CPU || 0) - (node.free.CPU || 0)).toFixed(0)} / ${node.resources.CPU || 0}`, 1 - (node.free.CPU || 0) / (node.resources.CPU || 1)),
          meter("Load", node.load.toFixed(1), node.load / node.cpus),
          meter(`${node.processes} proc.`, bytes(node.rss), node.rss / node.memory),
          meter("Arena", bytes(node.arena), node.arena / node.memory)),
        spark);
    }));
  },

  actors() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), ended = $("dead").checked;
    const load = (actor) => { const [waits, runs] = seen.pulse.pending[actor.id] || [0, 0]; return waits + runs; };
    const found = seen.actors.filter((actor) => (ended || actor.state !== "DEAD") && words.every((word) =>
      `${actor.class} ${actor.name || ""} ${actor.id} ${actor.node} ${actor.state}`.toLowerCase().includes(word)));
    found.sort((a, b) => load(b) - load(a));
    rows($("actor-rows"), found.slice(0, SHOWN_ACTORS), (actor) => actor.id, (row, actor) => {
      const [waits, runs] = seen.pulse.pending[actor.id] || [0, 0];
      const name = make("div", {}, make("button", { type: "button", textContent: actor.name || actor.class, title: actor.id }),
        make("small", { textContent: `${actor.name ? actor.class + " " : ""}${actor.id}${actor.reason ? ": " + actor.reason : ""}` }));
      const fill = make("i");
      fill.style.width = `${Math.min(100, 14 * Math.log2(1 + waits + runs))}%`;
      const box = make("span", {}, make("span", { class: "box" }, fill), `${runs} runs, ${waits} wait`);
      box.dataset.live = "1";
      cells(row, [name, badge(actor.state), `${actor.node || "–"}${actor.pid ? ` · ${actor.pid}` : ""}`, box]);
      row.onclick = (event) => { if (event.target.closest("button")) open(actor.id); };
    }, words.length ? "No actor matches." : "No actors yet: they appear as soon as a program makes one.", 4);
    $("more").textContent = found.length > SHOWN_ACTORS ? `${found.length - SHOWN_ACTORS} more: narrow the filter.` : "";
  },

  open() {
    rows($("open-rows"), seen.pulse.calls.slice(0, 100), (call) => `${call.actor}/${call.method}/${call.caller}/${(seen.pulse.at - call.age).toFixed(1)}`, (row, call) => {
      const what = make("div", {}, make("button", { type: "button", textContent: `${call.class}.${call.method}` }),
        ...(call.waits_for.length ? [make("small", { textContent: `waits for ${call.waits_for.join(", ")}` })] : []));
      cells(row, [what, badge(call.state), seconds(call.state === "RUNNING" ? call.running : call.age), call.caller]);
      row.onclick = (event) => { if (event.target.closest("button")) open(call.actor); };
    }, "Nothing is asked just now.", 4);
  },

  methods() {
    rows($("method-rows"), seen.pulse.methods.slice(0, 60), (row) => `${row.method}/${row.outcome}`, (row, m) => {
      cells(row, [m.method + (m.outcome === "ok" ? "" : ` (${m.outcome})`), count(m.count), seconds(m.queued / m.count), seconds(m.ran / m.count)]);
    }, "No call is over yet.", 4);
  },

  groups() {
    $("groups").replaceChildren(...(seen.pulse.groups.length ? seen.pulse.groups.map((group) => make("div", { class: "item" },
      make("p", {}, badge(group.state), ` ${group.size} ranks on ${[...new Set(group.nodes)].join(", ")}`),
      ...group.ops.map(([op, n, size, time, failed]) => make("p", { class: "quiet", textContent: `${op}: ${count(n)} times, ${seconds(time / n)} each, ${bytes(size / n | 0)}${failed ? `, ${failed} failed` : ""}` })),
      ...(group.reason ? [make("p", { class: "quiet", textContent: group.reason })] : []))) : [make("p", { class: "none", textContent: "No groups." })]));
  },

  models() {
    $("models").replaceChildren(...(seen.pulse.models.length ? seen.pulse.models.map((model) => make("div", { class: "item" },
      make("p", {}, badge(model.state), ` ${model.model}`),
      make("div", { class: "stages" }, ...model.stages.map(([node, first, last]) => make("span", { textContent: `${node}: ${first}–${last}`, title: `layers ${first} to ${last}` }))),
      make("p", { class: "quiet", textContent: model.tokens ? `${count(model.tokens)} tokens, ${(model.tokens / model.seconds).toFixed(1)} a second` : "no tokens yet" }))) : [make("p", { class: "none", textContent: "No models." })]));
  },

  latest() {
    if (!$("latest").closest("details").open) return;
    rows($("latest"), seen.calls.slice(-40).reverse(), (call) => `${call.at}/${call.actor}/${call.method}`, (row, call) => cells(row, [
      `${call.class_name}.${call.method}`, call.caller_name, seconds(call.queued), seconds(call.ran), `${clock(call.at)} ${call.outcome}`]), "No call is over yet.", 5);
  },

  logs() {
    const box = $("logs"), word = $("log-filter").value.toLowerCase();
    const found = seen.lines.filter((line) => !word || `${line.name || ""} ${line.class_name} ${line.node} ${line.text}`.toLowerCase().includes(word)).slice(-SHOWN_LINES);
    box.replaceChildren(...(found.length ? found.map((line) => make("p", { class: line.stream },
      make("time", { textContent: clock(line.at) }), " ", make("span", { textContent: `${line.name || line.class_name || "worker"} ${line.pid} ${line.node}` }), ` ${line.text}`))
      : [make("p", { class: "none", textContent: word ? "No line matches." : "Nothing was printed." })]));
    if ($("stick").checked) box.scrollTop = box.scrollHeight;
  },
};

// -- the calls as a picture ----------------------------------------------------------------------------------------

let paused = null, shown = [], palette = null, lastRows = [], drawnAt = -1e3;

function hue(text) {
  let hash = 7;
  for (const letter of text) hash = (hash * 31 + letter.charCodeAt(0)) | 0;
  return 80 + ((hash % 240) + 240) % 240;  // never the red of what failed, nor the orange of what waits
}

function timeline(now = 0) {
  requestAnimationFrame(timeline);
  const canvas = $("timeline");
  if (document.hidden || !canvas.clientWidth || now - drawnAt < 40) return;
  drawnAt = now;
  const span = Number($("window").value), end = paused ?? Date.now() / 1e3 + seen.skew, begin = end - span;
  const calls = [];
  for (let i = seen.calls.length - 1; i >= 0; i--) { const call = seen.calls[i]; if (call.at < begin - 5) break; if (call.at >= begin && call.at - call.ran - call.queued <= end) calls.push(call); }
  const open = paused === null && seen.pulse ? seen.pulse.calls : [];
  const busy = new Map();
  for (const call of calls) busy.set(call.actor, (busy.get(call.actor) || 0) + 1);
  for (const call of open) busy.set(call.actor, (busy.get(call.actor) || 0) + 1);
  // A row stays in its place as long as it has anything to show.
  lastRows = lastRows.filter((actor) => busy.has(actor));
  for (const actor of busy.keys()) if (!lastRows.includes(actor) && lastRows.length < MOST_ROWS) lastRows.push(actor);
  const line = 24, left = Math.min(150, canvas.clientWidth * .28), top = 18, width = canvas.clientWidth, height = top + Math.max(4, lastRows.length) * line + 4;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); canvas.style.height = `${height}px`;
  }
  palette ??= { ink: color("--ink"), quiet: color("--quiet"), line: color("--line"), queued: color("--warn-dot"), bad: color("--bad"), accent: color("--accent"), dark: matchMedia("(prefers-color-scheme: dark)").matches && document.documentElement.dataset.theme !== "light" || document.documentElement.dataset.theme === "dark" };
  const pen = canvas.getContext("2d"), place = new Map(lastRows.map((actor, i) => [actor, i]));
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const x = (at) => left + (at - begin) / span * (width - left - 4);
  pen.fillStyle = palette.quiet; pen.strokeStyle = palette.line; pen.lineWidth = 1;
  const ticks = Math.max(2, Math.min(6, Math.floor((width - left) / 95)));
  for (let i = 0; i <= ticks; i++) {
    const at = begin + span * i / ticks;
    pen.beginPath(); pen.moveTo(x(at), top); pen.lineTo(x(at), height); pen.stroke();
    pen.textAlign = i === ticks ? "right" : "left";
    pen.fillText(i === ticks && paused === null ? "now" : `−${seconds(end - at)}`, x(at) + (i === ticks ? 0 : 3), 8);
  }
  pen.textAlign = "left";
  lastRows.forEach((id, i) => {
    const actor = seen.byId.get(id);
    pen.fillStyle = palette.ink;
    pen.fillText((actor ? actor.name || actor.class : calls.find((call) => call.actor === id)?.method || "task").slice(0, Math.floor(left / 6.4)), 2, top + i * line + line / 2);
  });
  shown = [];
  const bar = (actor, from, start, until, style, call) => {
    const row = place.get(actor);
    if (row === undefined) return;
    const y = top + row * line + 4, h = line - 8, a = Math.max(left, x(from)), b = Math.max(left, x(start)), c = Math.max(b + 1.5, x(until));
    if (b - a > .5) { pen.globalAlpha = .5; pen.fillStyle = palette.queued; pen.fillRect(a, y + h / 2 - 2, b - a, 4); pen.globalAlpha = 1; }
    pen.fillStyle = style;
    if (c - b > 6) { pen.beginPath(); pen.roundRect(b, y, c - b, h, 3); pen.fill(); } else pen.fillRect(b, y, c - b, h);
    if (c - b > 50) { pen.fillStyle = palette.dark ? "#10121a" : "#fff"; pen.fillText(call.method.slice(0, Math.floor((c - b - 8) / 6)), b + 5, y + h / 2); }
    shown.push([a, y, c, y + h, call]);
  };
  const paint = (call) => `hsl(${hue(call.method)} ${palette.dark ? "70% 68%" : "62% 44%"})`;
  for (let i = calls.length - 1; i >= 0; i--) { const call = calls[i], start = call.at - call.ran; bar(call.actor, start - call.queued, start, call.at, call.outcome === "ok" ? paint(call) : palette.bad, call); }
  for (const call of open) { const now = end; bar(call.actor, now - call.age, call.state === "RUNNING" ? now - call.running : now, now, paint(call), { ...call, class_name: call.class, caller_name: call.caller, queued: call.age - call.running, ran: call.running, outcome: call.state.toLowerCase() }); }
  pen.strokeStyle = palette.accent; pen.globalAlpha = .55;
  for (const call of calls.slice(0, 150)) {
    const from = place.get((call.caller_name.match(/\((actor-\w+)\)/) || [])[1]), to = place.get(call.actor);
    if (from === undefined || to === undefined || from === to) continue;
    const sent = Math.max(left, x(call.at - call.ran - call.queued)), start = Math.max(left, x(call.at - call.ran)), y1 = top + from * line + line / 2, y2 = top + to * line + (from < to ? 4 : line - 4);
    pen.beginPath(); pen.moveTo(sent, y1); pen.bezierCurveTo(sent, (y1 + y2) / 2, start, (y1 + y2) / 2, start, y2); pen.stroke();
  }
  pen.globalAlpha = 1;
}

$("timeline").addEventListener("pointermove", (event) => {
  const [x, y] = [event.offsetX, event.offsetY], hit = shown.findLast(([a, b, c, d]) => x >= a - 1 && x <= c + 1 && y >= b && y <= d), tip = $("tip");
  tip.hidden = !hit;
  if (!hit) return;
  const call = hit[4];
  tip.textContent = `${call.class_name}.${call.method}  ${call.outcome}\ncalled by ${call.caller_name}\nwaited ${seconds(call.queued)}, ran ${seconds(call.ran)}`;
  tip.style.left = `${Math.min(x + 12, event.target.clientWidth - tip.offsetWidth - 4)}px`;
  tip.style.top = `${y + 14}px`;
});
$("timeline").addEventListener("pointerleave", () => { $("tip").hidden = true; });

// -- one actor -----------------------------------------------------------------------------------------------------

let chosen = null;

function open(id) {
  chosen = id;
  const actor = seen.byId.get(id);
  $("detail-name").textContent = actor ? `${actor.class} ${nameOf(actor)}` : id;
  $("detail-said").textContent = "";
  const facts = actor ? { id: actor.id, state: actor.state, node: actor.node || "none", process: `${actor.pid ?? "none"}${actor.light ? ", shared with other light actors" : ""}`, "made anew": `${actor.restarts} times`, ...(actor.reason ? { why: actor.reason } : {}) } : {};
  $("detail-facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  $("detail-kill").hidden = !actor || actor.state === "DEAD";
  $("detail-kill").textContent = "End this actor";
  if (!$("detail").open) $("detail").showModal();
  look();
}

async function look() {
  const id = chosen, box = $("detail-stack");
  box.textContent = "…";
  try {
    const said = await (await fetch(`stack?actor=${encodeURIComponent(id)}`)).json();
    if (id !== chosen) return;
    if (said.error) { box.textContent = said.error; return; }
    const lines = said.calls.flatMap((call) => [`${call.method} ${call.state === "RUNNING" ? `runs for ${seconds(call.running_s)}` : `has waited for ${seconds(call.age_s)}`}, called by ${call.caller}`, ...call.waits_for.map((name) => `  it waits for ${name}`)]);
    lines.push(...said.waited_for_by.map((call) => `${call.call} has waited for it for ${seconds(call.age_s)}`));
    if (!said.calls.length) lines.push("It has no calls: it waits for one.");
    if (said.gil_held) lines.push("GIL held: one step of C code keeps its interpreter; it was asked by SIGUSR1.");
    for (const part of said.stacks) lines.push("", part.where + (part.frames.length ? "" : ": idle"), ...part.frames);
    box.textContent = lines.join("\n");
  } catch (error) { box.textContent = String(error); }
}

$("detail-close").onclick = () => $("detail").close();
$("detail-again").onclick = look;
$("detail-kill").onclick = async (event) => {
  if (event.target.textContent !== "Really end it?") { event.target.textContent = "Really end it?"; return; }
  const answer = await fetch("kill", { method: "POST", headers: { "X-Actors": "1", "Content-Type": "application/json" }, body: JSON.stringify({ actor: chosen }) });
  const said = await answer.json();
  $("detail-said").textContent = said.error || "It has ended.";
  event.target.hidden = answer.ok;
};

// -- the page's own buttons ----------------------------------------------------------------------------------------

const themes = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  try { localStorage.setItem("theme", name); } catch { /* it is not kept */ }
  palette = null;
}
$("theme").onclick = () => theme(themes[(themes.indexOf($("theme").textContent.slice(7)) + 1) % 3]);
try { theme(themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system"); } catch { theme("system"); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { palette = null; });
$("pause").onclick = () => { paused = paused === null ? Date.now() / 1e3 + seen.skew : null; $("pause").textContent = paused === null ? "Pause" : "Go on"; $("pause").setAttribute("aria-pressed", String(paused !== null)); };
$("filter").oninput = $("dead").onchange = () => mark("actors");
$("log-filter").oninput = $("stick").onchange = () => mark("logs");
$("latest").closest("details").ontoggle = () => mark("latest");
addEventListener("resize", () => mark("topology"));
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName) && !$("detail").open) { event.preventDefault(); $("filter").focus(); }
  if (event.key === "Escape" && document.activeElement === $("filter")) { $("filter").value = ""; mark("actors"); }
});
timeline();
connect();
