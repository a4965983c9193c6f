// Asking the node. The token comes with the link (#token=…), stays in this tab's session and is handed to other tabs of
// this very page; it is sent as a header, never as a cookie, so that no other page can act with it.

const KEEP = "dropr-token";
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("dropr") : null;
let token = null;

function keep(found) {
  token = found;
  try {
    sessionStorage.setItem(KEEP, found);
  } catch {
    // A browser without storage: the token lasts as long as the page.
  }
}

/** Take the token from the link, from this tab, or from another tab; null if there is none. */
export async function findToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname); // it must not stay where people see and copy it
    keep(given);
  }
  try {
    token = token || sessionStorage.getItem(KEEP);
  } catch {
    // As above.
  }
  if (!token && tabs) {
    const found = await new Promise((done) => {
      tabs.addEventListener("message", (event) => event.data && event.data.token && done(event.data.token));
      tabs.postMessage({ wants: "token" });
      setTimeout(() => done(null), 250);
    });
    if (found) keep(found);
  }
  return token;
}

if (tabs) {
  tabs.addEventListener("message", (event) => {
    if (event.data && event.data.wants === "token" && token) tabs.postMessage({ token });
  });
}

/** Use what a person typed. */
export const useToken = (typed) => keep(typed.trim());

/** Forget it, here. */
export function forgetToken() {
  token = null;
  try {
    sessionStorage.removeItem(KEEP);
  } catch {
    // As above.
  }
}

/** What went wrong, in the node's own sentence. */
export class Trouble extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      credentials: "omit",
      cache: "no-store",
      headers: { ...(options && options.headers), Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(20000),
    });
  } catch {
    throw new Trouble(0, "The node does not answer. It is asked again every few seconds.");
  }
  let document = null;
  try {
    document = await answer.json();
  } catch {
    throw new Trouble(answer.status, `The node answered with something else (${answer.status}).`);
  }
  if (!answer.ok) throw new Trouble(answer.status, document.error || `The node answered ${answer.status}.`);
  return document;
}

/** GET, with a query from an object. */
export const get = (path, query) => ask(query ? `${path}?${new URLSearchParams(query)}` : path);

/** Press a button: POST /api/do/NAME. */
export const act = (name, words) =>
  ask(`/api/do/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(words),
  });
