// Draws the parts of the panel: data in, DOM nodes out. Data enters as text and attributes, never as HTML.
//
// The sign of a score is said three times without colour: a word-like sign in the text, the side of the zero line, and
// a hatch for what is negative. All bars of one answer share one scale, and so do all sparklines.

const SVG = "http://www.w3.org/2000/svg";

/** An element: strings become attributes, other values properties. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "string") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Three digits and always a sign: "+12.8", "−0.00410", "−3.10e-6". */
export function signed(value) {
  const size = Math.abs(value);
  const digits = { minimumSignificantDigits: 3, maximumSignificantDigits: 3 };
  const text = size > 0 && size < 1e-3 ? size.toExponential(2) : size.toLocaleString("en", digits);
  return (value < 0 ? "\u2212" : value > 0 ? "+" : "") + text;
}

/** "4,500". */
export const count = (value) => value.toLocaleString("en");

/** The panel before any answer: its parts by name; `on` says what each control does. */
export function frame(on) {
  const parts = {};
  const part = (name, tag, properties, ...children) => (parts[name] = h(tag, properties, ...children));
  const button = (text, title, onclick) => h("button", { type: "button", title, onclick }, text);
  const toggle = (split) => part(split, "button", { type: "button", onclick: () => on.change({ split }) }, split);
  const choice = (name) => part(name, "select", { name, onchange: ({ target }) => on.change({ [name]: target.value }) });
  const takeFile = ({ target }) => on.take([...target.files]).then(() => (target.value = "")); // the same one can come again
  part("root", "main", { tabIndex: -1 },
    h("header", { class: "top" },
      h("h1", {}, mark(), "Proponent"),
      h("label", {}, "Index ",
        part("index", "select", { name: "index", onchange: ({ target }) => on.index(target.value) })),
      part("facts", "p", { class: "facts" }),
      h("a", { href: "/docs" }, "API")),
    h("p", { class: "lead" }, "Which training examples made this model say that? A score above zero (+) means that " +
      "training on the example lowered the loss of the query; below zero (\u2212), that it raised it."),
    h("div", { class: "ask" },
      h("section", { class: "query", "aria-label": "Query" },
        part("picture", "img", { class: "picture", alt: "", width: 196, height: 196 }),
        h("div", { class: "controls" },
          h("h2", {}, "Query"),
          h("div", { class: "group" }, toggle("test"), toggle("train")),
          h("label", { class: "field" }, "id ", part("id", "input", { name: "id", size: 6, spellcheck: false,
            autocomplete: "off", onchange: ({ target }) => on.change({ id: target.value.trim() }) })),
          h("div", { class: "group" },
            button("\u2190", "previous example (k)", () => on.step(-1)),
            button("random", "a random example of this split", on.random),
            button("\u2192", "next example (j)", () => on.step(1))),
          part("upload", "label", { class: "upload" },
            h("input", { type: "file", name: "image", class: "unseen", accept: "image/png,image/jpeg", onchange: takeFile }),
            h("span", { class: "button" }, "Upload image"), h("small", {}, "or drop or paste a PNG or JPEG")))),
      h("section", { class: "prediction", "aria-label": "Prediction" },
        h("h2", {}, "Prediction"), part("prediction", "div", {})),
      h("section", { class: "explain", "aria-label": "Explain" },
        h("h2", {}, "Explain"),
        h("label", { class: "field" }, "loss at label ", choice("label")),
        h("label", { class: "field" }, "show ", choice("k")),
        part("loss", "p", {}))),
    part("answer", "div", { class: "answer" }),
    h("footer", {},
      part("timing", "div", {}),
      h("p", { class: "group" }, button("Copy as curl", "this query as a command", on.copyCurl),
        button("Copy link", "a link to this question", on.copyLink)),
      part("request", "p", { class: "id" }),
      part("status", "p", { class: "status", role: "status", "aria-live": "polite" })));
  return parts;
}

/** How many hits a side; `k` may be a size of the link's own. */
export function sizeOptions(k) {
  const sizes = [...new Set([5, 10, 20, k])].sort((a, b) => a - b);
  return sizes.map((size) => h("option", { value: String(size) }, `${size} a side`));
}

/** The predicted label as "", then every label. */
export function labelOptions(labels, { predicted, own, ownName }) {
  const first = predicted == null ? "predicted" : `${predicted} (predicted)`;
  const rest = labels.map((label) => h("option", { value: label }, label === own ? `${label} (${ownName})` : label));
  return [h("option", { value: "" }, first), ...rest];
}

/** Two bars, one up and full, one down and hollow. */
function mark() {
  return s("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" },
    s("rect", { class: "up", x: "2", y: "2", width: "5", height: "8" }),
    s("rect", { class: "down", x: "9.5", y: "7.5", width: "4", height: "6" }));
}

/** The five most probable labels, and the example's own if it is not among them. */
export function prediction({ query, own, ownName }) {
  const ranked = Object.entries(query.probabilities).sort((a, b) => b[1] - a[1]);
  const shown = ranked.filter(([label], rank) => rank < 5 || label === own);
  const rows = shown.map(([label, share]) => {
    const tags = [label === query.predicted && "predicted", label === own && ownName].filter(Boolean);
    const bar = h("span", { class: "fill" });
    bar.style.width = `${100 * share}%`;
    return h("li", { class: tags.length ? "tagged" : "" },
      h("span", { class: "label" }, label),
      h("span", { class: "track" }, bar),
      h("span", { class: "number" }, `${(100 * share).toFixed(1)} %`),
      h("span", { class: "tag" }, tags.join(", ")));
  });
  return h("ol", { class: "shares" }, ...rows);
}

/** One side of an answer; `limits` come from `scales`. */
export function column({ title, meaning, hits, limits, checkpoints, asked, choose }) {
  const axis = h("div", { class: "axis", "aria-hidden": "true" },
    ...[-limits.score, 0, limits.score].map((value) => h("span", {}, signed(value).replace("0.00", "0"))));
  const cards = hits.map((hit) => h("li", {}, card(hit, { limits, checkpoints, asked, choose })));
  return h("section", { "aria-label": title },
    h("header", {}, h("h2", {}, title), h("p", {}, meaning), mix(hits)),
    hits.length ? axis : h("p", { class: "none" }, "None."),
    h("ol", { class: "cards" }, ...cards));
}

/** The largest score and the largest part of a score by checkpoint, over both sides. */
export function scales(hits) {
  const largest = (values) => Math.max(...values.map(Math.abs), Number.MIN_VALUE);
  return { score: largest(hits.map((hit) => hit.score)), part: largest(hits.flatMap((hit) => hit.per_checkpoint ?? [])) };
}

/** "8 × 7 · 2 × 9": how many hits have which label. */
function mix(hits) {
  const counts = new Map();
  for (const { label } of hits) counts.set(label, (counts.get(label) ?? 0) + 1);
  const ranked = [...counts].sort((a, b) => b[1] - a[1]);
  const parts = ranked.flatMap(([label, n], i) => [`${i ? " · " : ""}${n} × `, h("b", { class: "label" }, label)]);
  return h("p", { class: "mix", title: "labels: how many × which" }, ...parts);
}

/** "> 99.987 %": the share of the index's scores that lies below, with two digits of what is rarer. */
function above(percentile) {
  const rarer = Math.min(percentile, 100 - percentile);
  if (rarer <= 0) return percentile > 0 ? "> all" : "> none";
  return `> ${percentile.toFixed(Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(rarer)))))} %`;
}

function card(hit, { limits, checkpoints, asked, choose }) {
  const bar = h("span", { class: hit.score < 0 ? "fill negative" : "fill" });
  bar.style.width = `${(50 * Math.abs(hit.score)) / limits.score}%`;
  const self = hit.split === asked.split && hit.id === asked.id;
  const influence = hit.self_influence === null ? "" : `\nself-influence ${signed(hit.self_influence).replace("+", "")}`;
  const place = hit.percentile == null ? "" : above(hit.percentile);
  const beside = place && `, ${place} of a sample of this index's scores`;
  const title = `Ask about ${hit.split} ${hit.id}\nscore ${signed(hit.score)}${beside}${influence}`;
  return h("button", { type: "button", class: "card", title, onclick: () => choose(hit) },
    h("img", { src: hit.media_url, alt: "", width: 48, height: 48 }),
    h("span", { class: "name" },
      h("span", { class: "label" }, h("span", { class: "unseen" }, "label "), hit.label),
      h("span", { class: "id" }, self ? "query itself" : `${hit.split} ${hit.id}`)),
    h("span", { class: "track zero" }, bar),
    h("span", { class: "score" }, signed(hit.score), place ? h("small", {}, place) : null),
    hit.per_checkpoint ? sparkline(hit.per_checkpoint, limits.part, checkpoints) : null);
}

/** A bar a checkpoint: full above the zero line, hollow below it. */
function sparkline(parts, limit, checkpoints) {
  const step = Math.min(12, 60 / parts.length);
  const words = parts.map((value, i) => `${checkpointName(checkpoints[i], i)}: ${signed(value)}`);
  const text = `Score by checkpoint\n${words.join("\n")}`;
  const left = 30 - (step * parts.length) / 2;
  const bars = parts.map((value, i) => {
    const size = Math.max(0.5, (13 * Math.abs(value)) / limit);
    const place = { x: left + step * i + step * 0.15, y: value < 0 ? 14 : 14 - size, width: step * 0.7, height: size };
    const attributes = Object.entries(place).map(([name, number]) => [name, number.toFixed(2)]);
    return s("rect", { class: value < 0 ? "down" : "up", ...Object.fromEntries(attributes) });
  });
  return s("svg", { class: "spark", viewBox: "0 0 60 28", role: "img", "aria-label": text.replaceAll("\n", ", ") },
    s("title", {}, text), s("line", { x1: "0", x2: "60", y1: "14", y2: "14" }), ...bars);
}

/** The shortest name that a checkpoint has. */
function checkpointName(checkpoint, i) {
  if (checkpoint?.epoch != null) return `epoch ${Number(checkpoint.epoch.toPrecision(4))}`;
  return checkpoint?.step != null ? `step ${checkpoint.step}` : `checkpoint ${i + 1}`;
}

/** What a checkpoint weighs: one eta, or one for each group of parameters. */
function weights({ eta, rates }) {
  const etas = rates.length ? rates.map((rate) => rate.eta) : [eta];
  return `eta ${etas.map((value) => Number(value.toPrecision(4))).join(" and ")}`;
}

/** An index in one line and, for who points at it, more: "recall@10 91 % / 94 %" is that of both directions. */
export function about({ version, method, rows, checkpoints, card }) {
  const facts = [`version ${version.slice(0, 12)}`, method, `${count(rows)} training examples`,
    `${checkpoints.length} checkpoint${checkpoints.length === 1 ? "" : "s"}`];
  const more = checkpoints.map((checkpoint, i) => `${checkpointName(checkpoint, i)}, ${weights(checkpoint)}`);
  if (card) {
    const [up, down] = [card.proponents, card.opponents].map((found) => `${(100 * found.recall_at_10).toFixed(0)} %`);
    facts.push(`recall@10 ${up} / ${down}`);
    more.push(`recall of proponents / opponents, on ${count(card.queries)} ${card.source} examples`);
  }
  return { textContent: facts.join(" \u00b7 "), title: more.join("\n") };
}

/** Milliseconds by stage, in the order of the answer; the total last. */
export function timing(stages) {
  const parts = Object.entries(stages).map(([stage, ms]) => [stage.replace(/_ms$/, ""), ms.toFixed(1)]);
  return h("dl", { class: "timing" },
    ...parts.map(([stage, ms]) => h("div", {}, h("dt", {}, stage), h("dd", {}, `${ms} ms`))));
}

/** What went wrong, as the server's problem says it. */
export function failure(problem, retry) {
  const items = (problem.errors ?? []).map((item) => h("li", {}, `${item.loc.join(".")}: ${item.msg}`));
  return h("div", { class: "failure", role: "alert" },
    h("h2", {}, [problem.status, problem.title].filter(Boolean).join(" ")),
    h("p", {}, problem.message),
    items.length ? h("ul", {}, ...items) : null,
    problem.request_id ? h("p", { class: "id" }, `request ${problem.request_id}`) : null,
    h("button", { type: "button", onclick: retry }, "Try again"));
}

/** Grey rows in the place of hits to come. */
export function skeleton(rows) {
  const side = () => h("section", {}, h("div", { class: "ghost head" }),
    ...Array.from({ length: rows }, () => h("div", { class: "ghost" })));
  return [side(), side()];
}
