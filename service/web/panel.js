// <proponent-panel>: asks which training examples made a model say that, and draws the answer.
//
// The whole question stands in location.hash (#index=mnist&split=test&id=17&label=5&k=10): every control changes the hash,
// and `#show` reads it, asks the HTTP API and draws. Only an uploaded image (split=upload) is kept beside it, in
// history.state. A newer question aborts the one under way, so no late answer is drawn.
//
// Keys, while the panel has focus and no field does: j or right = next example, k or left = previous one.

import {
  about, column, count, failure, frame, h, labelOptions, prediction, scales, signed, sizeOptions, skeleton, timing,
} from "./draw.js";
import { copied } from "./copy.js";
import { Ids, MOST_LISTED, Problem, call } from "./api.js";

const PATIENCE_MS = 150; // an answer within this time replaces the old one without a flicker

class ProponentPanel extends HTMLElement {
  #parts = {};
  #indexes = null;
  #index = null;
  #lists = new Map(); // index, version and split -> Ids
  #question = {}; // split, id, k, label and image as the hash has them, absent ones resolved
  #sent = null; // path and body of the last query, for curl
  #asking = new AbortController();
  #walking = new AbortController();
  #show = () => this.#answer();

  connectedCallback() {
    if (!this.shadowRoot) this.#build();
    window.addEventListener("popstate", this.#show); // also fired when the hash is edited by hand
    this.#answer();
  }

  disconnectedCallback() {
    window.removeEventListener("popstate", this.#show);
    this.#asking.abort();
    this.#walking.abort();
  }

  #build() {
    const parts = (this.#parts = frame({
      index: (name) => this.#goIndex(name),
      change: (changes) => this.#go(changes),
      step: (by) => this.#step(by),
      random: () => this.#random(),
      take: (files) => this.#take(files),
      copyCurl: () => this.#copyCurl(),
      copyLink: () => this.#copy(location.href, "the link"),
    }));
    const style = h("link", { rel: "stylesheet", href: new URL("style.css", import.meta.url).href });
    this.hidden = true; // until its style is there
    style.onload = style.onerror = () => {
      this.hidden = false;
      if (this.hasAttribute("autofocus")) parts.root.focus({ preventScroll: true });
    };
    const on = (name, act) => parts.root.addEventListener(name, act);
    on("keydown", (event) => this.#key(event));
    on("paste", (event) => this.#take(event.clipboardData.files));
    on("dragover", (event) => (event.preventDefault(), this.#hover(true)));
    on("dragleave", () => this.#hover(false));
    on("drop", (event) => (event.preventDefault(), this.#hover(false), this.#take(event.dataTransfer.files)));
    this.attachShadow({ mode: "open" }).append(style, parts.root);
  }

  // -- where to go: every move ends in #go, which changes the hash

  /** Change the question; a new split or id drops what belonged to the old example. */
  #go(changes, image = null) {
    const { split, id, label, k } = this.#question;
    const moved = "split" in changes || "id" in changes;
    const next = { index: this.#index.name, split, id: "split" in changes ? null : id, label: moved ? null : label, k };
    const kept = Object.entries({ ...next, ...changes }).filter(([, value]) => value != null && value !== "");
    const upload = image ?? (moved ? null : this.#question.image);
    history.pushState(upload && { image: upload }, "", `#${new URLSearchParams(kept)}`);
    this.#answer();
  }

  #goIndex(index) {
    history.pushState(null, "", `#${new URLSearchParams({ index, k: this.#question.k ?? 10 })}`);
    this.#answer();
  }

  async #step(by) {
    const { split, id } = this.#question;
    if (split === "upload") return this.#say("an uploaded image has no neighbours; choose a split");
    await this.#walk(async (signal) => {
      const ids = await this.#ids(split, (read) => read.indexOf(id) + by in read && read.includes(id), signal);
      const place = ids.indexOf(id);
      if (place < 0) this.#say(`${split} ${id} is too far on to step from`);
      else if (!(place + by in ids)) this.#say(`${split} ${id} is the ${by < 0 ? "first" : "last"} one`);
      else this.#go({ split, id: ids[place + by] });
    });
  }

  #random() {
    const split = this.#question.split === "train" || !this.#index.splits.test ? "train" : "test";
    return this.#walk(async (signal) => {
      const place = Math.floor(Math.random() * Math.min(this.#index.splits[split], MOST_LISTED));
      const ids = await this.#ids(split, (read) => place in read, signal);
      this.#go({ split, id: ids[place] });
    });
  }

  async #walk(move) {
    this.#walking.abort();
    const { signal } = (this.#walking = new AbortController());
    await move(signal).catch((error) => signal.aborted || this.#fail(error));
  }

  #key(event) {
    const field = event.target.closest("input, select");
    const by = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 }[event.key];
    if (!by || field || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !this.#index) return;
    event.preventDefault();
    this.#step(by);
  }

  /** Ask about the first file that was given. */
  async #take([file]) {
    if (!file || this.#index?.input.modality !== "image") return;
    const limit = this.#index.limits.max_body_bytes ?? Infinity;
    if (!["image/png", "image/jpeg"].includes(file.type)) return this.#say("expected a PNG or JPEG file");
    if ((file.size * 4) / 3 > limit) return this.#say(`the file is too large: a request has at most ${count(limit)} bytes`);
    const reader = new FileReader();
    await new Promise((done) => ((reader.onloadend = done), reader.readAsDataURL(file)));
    if (reader.error) this.#say("the file cannot be read");
    else this.#go({ split: "upload" }, reader.result);
  }

  #ids(split, enough, signal) {
    const { name, version, limits } = this.#index;
    const key = JSON.stringify([name, version, split]);
    if (!this.#lists.has(key)) this.#lists.set(key, new Ids(`${this.#path}/examples`, split, limits.page_size));
    return this.#lists.get(key).until(enough, signal);
  }

  // -- ask and draw

  get #path() {
    return `/v1/indexes/${encodeURIComponent(this.#index.name).replaceAll("'", "%27")}`; // stands in quotes in curl
  }

  async #answer() {
    this.#walking.abort();
    this.#asking.abort();
    const { signal } = (this.#asking = new AbortController());
    const late = setTimeout(() => this.#wait(), PATIENCE_MS);
    try {
      await this.#ask(signal);
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    } finally {
      clearTimeout(late);
      if (!signal.aborted) this.#parts.answer.ariaBusy = "false";
    }
  }

  async #ask(signal) {
    this.#sent = null;
    const hash = new URLSearchParams(location.hash.slice(1));
    this.#indexes ??= (await call("/v1/indexes", signal)).indexes;
    if (!this.#indexes.length) return this.#empty("No index is served. Build one, then start the service with its folder.");
    const name = hash.get("index") ?? this.#indexes[0].name;
    this.#parts.index.replaceChildren(...this.#indexes.map((index) => h("option", {}, index.name)));
    this.#parts.index.value = name;
    if (this.#index?.name !== name) {
      this.#index = null; // nothing of the old one is shown or asked while the new one is on its way
      this.#parts.facts.replaceChildren();
      delete this.#parts.root.dataset.state;
      this.#index = await call(`/v1/indexes/${encodeURIComponent(name)}`, signal);
      this.#drawIndex();
    }
    const split = hash.get("split") ?? (this.#index.splits.test ? "test" : "train");
    const [id, label, k] = ["id", "label", "k"].map((field) => hash.get(field));
    const image = split === "upload" ? history.state?.image : null;
    this.#question = { split, id, label, k: Number(k ?? 10), image };
    if (split !== "upload") this.#question.id ??= (await this.#ids(split, (read) => read.length, signal))[0];
    if (!image && this.#question.id == null) {
      this.#drawQuestion();
      return this.#empty("Nothing to ask about yet: choose a split, type an id, or drop an image here.");
    }
    await this.#query(signal);
  }

  async #query(signal) {
    const { split, id, label, k, image } = this.#question;
    const known = `${this.#path}/examples/${encodeURIComponent(split)}/${encodeURIComponent(id)}`;
    this.#drawQuestion(image ?? `${known}/media`);
    const own = image ? null : (await call(known, signal)).label;
    const example = image ? { modality: "image", data: image.split(",")[1] } : { modality: "id", split, id };
    const body = { example, explain: { quantity: "loss" }, k, include: ["per_checkpoint", "media"] };
    if (!this.#index.labels) Object.assign(body, own !== null && own !== "" && isFinite(own) && { target: Number(own) });
    else if (label !== null) body.label = label;
    this.#sent = { path: `${this.#path}/query`, body };
    const answer = await call(this.#sent.path, signal, body);
    signal.throwIfAborted();
    this.#drawAnswer(answer, own);
  }

  #drawIndex() {
    const { splits, input, labels } = this.#index;
    Object.assign(this.#parts.facts, about(this.#index));
    for (const split of ["test", "train"]) this.#parts[split].hidden = !splits[split];
    this.#parts.upload.hidden = input.modality !== "image";
    this.#parts.label.parentElement.hidden = !labels;
  }

  #drawQuestion(picture) {
    const { split, id, k, image } = this.#question;
    for (const name of ["test", "train"]) this.#parts[name].setAttribute("aria-pressed", String(name === split));
    this.#parts.id.value = id ?? "";
    this.#parts.id.placeholder = image ? "uploaded" : "";
    this.#parts.picture.hidden = !picture;
    if (picture) this.#parts.picture.src = picture;
    this.#parts.picture.alt = image ? "the uploaded image" : `${split} example ${id}`;
    this.#parts.k.replaceChildren(...sizeOptions(k));
    this.#parts.k.value = String(k);
    this.#parts.root.dataset.state = "ready";
  }

  #drawAnswer(answer, own) {
    const { query, score, proponents, opponents, warnings } = answer;
    const ownName = this.#question.split === "train" ? "given label" : "label";
    const limits = scales([...proponents, ...opponents]);
    const { checkpoints } = this.#index;
    const shared = { limits, checkpoints, asked: this.#question, choose: (hit) => this.#choose(hit) };
    this.#parts.prediction.replaceChildren(prediction({ query, own, ownName }));
    this.#drawLabels({ predicted: query.predicted, own, ownName });
    this.#parts.loss.textContent = `loss ${signed(query.loss).replace("+", "")} at label ${query.label}`;
    this.#parts.answer.replaceChildren(
      column({ title: "Proponents", meaning: "Training on them lowered this loss.", hits: proponents, ...shared }),
      column({ title: "Opponents", meaning: "Training on them raised this loss.", hits: opponents, ...shared }));
    this.#parts.timing.replaceChildren(timing(answer.timing));
    this.#parts.request.textContent = answer.id && `request ${answer.id}`;
    const kind = score.exact ? "exact" : "estimated from projections";
    const found = `${proponents.length} proponents and ${opponents.length} opponents; scores are ${kind}`;
    this.#say([found, ...warnings].join("; "));
  }

  #drawLabels(known = {}) {
    this.#parts.label.replaceChildren(...labelOptions(this.#index?.labels ?? [], known));
    this.#parts.label.value = this.#question.label ?? "";
  }

  #choose({ split, id }) {
    this.#parts.root.focus({ preventScroll: true }); // the card is about to go
    this.#go({ split, id });
    this.scrollIntoView();
  }

  #wait() {
    this.#clear(...skeleton(Math.min(this.#question.k ?? 10, 20)));
    this.#parts.answer.ariaBusy = "true";
    this.#say("asking \u2026");
  }

  #empty(text) {
    this.#clear(h("p", { class: "empty" }, text));
    this.#say("");
  }

  #fail(error) {
    if (!(error instanceof Problem)) console.error(error);
    this.#clear(failure(error, this.#show));
    this.#say("failed");
  }

  /** Take away what belonged to an older question. */
  #clear(...instead) {
    for (const name of ["prediction", "loss", "timing", "request"]) this.#parts[name].replaceChildren();
    this.#drawLabels();
    this.#parts.answer.replaceChildren(...instead);
  }

  #say(text) {
    this.#parts.status.textContent = text;
  }

  #hover(over) {
    this.#parts.root.classList.toggle("over", over && this.#index?.input.modality === "image");
  }

  #copyCurl() {
    if (!this.#sent) return this.#say("nothing has been asked yet");
    const { path, body } = this.#sent;
    const data = JSON.stringify(body); // one line, so that no line of it can end the here-document
    const head = `curl -sS '${location.origin}${path}' -H 'Content-Type: application/json' --data-binary @- <<'JSON'`;
    this.#copy(`${head}\n${data}\nJSON\n`, "the command");
  }

  async #copy(text, what) {
    this.#say((await copied(text, this.#parts.root)) ? `copied ${what}` : "the browser refused to copy");
  }
}

customElements.define("proponent-panel", ProponentPanel);
