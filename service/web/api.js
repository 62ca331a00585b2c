// The HTTP API: `call` returns the answer, or throws a Problem (problem+json, or what can be said without one);
// `Ids` reads the ids of a split, page by page.

export const MOST_LISTED = 20_000; // pages are read one after the other: further on, an id must be typed

export class Problem extends Error {
  constructor(body) {
    super(body.detail);
    const { status, title, errors, request_id } = body;
    Object.assign(this, { status, title, errors, request_id });
  }
}

export async function call(path, signal, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  try {
    const response = await fetch(path, { signal, ...(body && post) });
    const answer = await response.json().catch((error) => (signal.aborted ? Promise.reject(error) : null));
    if (response.ok && answer) return answer;
    const bare = { status: response.status, title: response.statusText, detail: "The server did not say why." };
    throw new Problem(answer?.detail ? answer : bare);
  } catch (error) {
    if (signal.aborted || error instanceof Problem) throw error;
    throw new Problem({ title: "No answer", detail: "The server cannot be reached. Is it still running?" });
  }
}

export class Ids {
  #ids = [];
  #next = ""; // the cursor of the next page, or null after the last

  constructor(path, split, pageSize) {
    Object.assign(this, { path, split, pageSize });
  }

  /** Read on until the ids, in their order, are enough or at an end; return those read so far. */
  async until(enough, signal) {
    while (this.#next !== null && this.#ids.length < MOST_LISTED && !enough(this.#ids)) {
      const cursor = this.#next;
      const wish = new URLSearchParams({ split: this.split, limit: this.pageSize, ...(cursor && { cursor }) });
      const page = await call(`${this.path}?${wish}`, signal);
      if (this.#next !== cursor) continue; // another walk has read this page
      this.#ids.push(...page.examples.map(({ id }) => id));
      this.#next = page.next_cursor;
    }
    return this.#ids;
  }
}
