// What each state means for whoever looks: a tone (colour), a sign and a word. Never the colour alone.

const SIGNS = { good: "✓", calm: "○", warn: "!", bad: "✕" };

const PEERS = {
  up: ["good", "up"],
  idle: ["calm", "idle"],
  resting: ["bad", "unreachable"],
  refused: ["bad", "refused"],
  held: ["warn", "held"],
  unknown: ["calm", "unknown"],
};

const MESSAGES = {
  ready: "good", leased: "good", processed: "good", done: "good", accepted: "good",
  queued: "calm", delayed: "calm", blocked: "calm", cancelled: "calm",
  held: "warn", expired: "warn", buried: "bad", dead: "bad", failed: "bad",
};

/** Tone, sign and word of a peer. */
export function peerState(peer) {
  const calls = peer.state === "unknown" && peer.mode === "pull";
  const [tone, word] = calls ? ["calm", "fetches its mail"] : PEERS[peer.state] || ["calm", peer.state];
  return { tone, sign: SIGNS[tone], word };
}

/** The same of a message. */
export function messageState(state) {
  const tone = MESSAGES[state] || "calm";
  return { tone, sign: SIGNS[tone], word: state };
}

const SCHEDULES = { on: "good", paused: "warn", disabled: "calm", over: "calm", broken: "bad" };

/** The same of a schedule. */
export function scheduleState(state) {
  const tone = SCHEDULES[state] || "calm";
  return { tone, sign: SIGNS[tone], word: state };
}

/** One sentence on a peer. */
export function peerSentence(peer, age) {
  const parts = [];
  if (peer.reason) parts.push(peer.reason);
  else if (peer.last_error && peer.state === "resting") parts.push(peer.last_error);
  if (peer.state === "unknown" && peer.mode === "push") parts.push("no daemon runs here that could tell");
  if (peer.state === "idle") parts.push("nothing waits for it");
  if (peer.next_try_in !== null && peer.next_try_in > 0) parts.push(`next try in ${age(peer.next_try_in)}`);
  if (peer.last_contact !== null) parts.push(`it asked here ${age(peer.last_contact)} ago`);
  return parts.join("; ").replace("now ago", "just now");
}

/** How the whole node is, in one sentence with its tone. */
export function verdict(snapshot) {
  const bad = [];
  const warn = [];
  const run = snapshot.processes;
  if (!run.daemon) bad.push("no daemon runs");
  else if (run.daemon.store) bad.push(`the store: ${run.daemon.store}`);
  const far = snapshot.peers.filter((one) => ["resting", "refused"].includes(one.state));
  if (far.length) bad.push(far.length === 1 ? `${far[0].peer} cannot be reached` : `${far.length} peers cannot be reached`);
  const held = snapshot.peers.filter((one) => one.held);
  if (held.length) warn.push(held.length === 1 ? `${held[0].peer} is held` : `${held.length} peers are held`);
  const paused = snapshot.channels.filter((one) => one.paused);
  if (paused.length) warn.push(paused.length === 1 ? `${paused[0].channel} is paused` : `${paused.length} channels are paused`);
  const letters = snapshot.dead_letters.outbox + snapshot.dead_letters.inbox;
  if (letters) warn.push(letters === 1 ? "1 dead letter" : `${letters} dead letters`);
  if (snapshot.disk.free <= snapshot.disk.floor) bad.push("the disk is full");
  const tone = bad.length ? "bad" : warn.length ? "warn" : "good";
  return { tone, sign: SIGNS[tone], text: [...bad, ...warn].join(" · ") || "all is well" };
}
