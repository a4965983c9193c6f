// The topology as a picture: this node in the middle, a line to each peer with what waits on it. On a narrow screen the
// peers stand below one another. Drawn anew when peers or width change; else only its texts and colours do.

import { age, count, rate, s, say, set, short } from "./dom.js";
import { peerSentence, peerState } from "./states.js";

const WIDE = 640;
const BOX = { width: 190, height: 58 };
const MOST = 24;

/** The peers that are shown: if there are many, those with something to say first. */
function shown(peers) {
  if (peers.length <= MOST) return peers;
  const weight = (one) => (["good", "calm"].includes(peerState(one).tone) ? 0 : 1e12) + one.waiting;
  const chosen = new Set([...peers].sort((a, b) => weight(b) - weight(a)).slice(0, MOST).map((one) => one.peer));
  return peers.filter((one) => chosen.has(one.peer));
}

function places(number, width) {
  if (width < WIDE) {
    const box = { ...BOX, width: width - 44 };
    return {
      box,
      height: 96 + number * 92,
      middle: { x: width / 2, y: 42 },
      peers: [...Array(number).keys()].map((at) => ({ x: 40, y: 110 + at * 92, side: 0 })),
    };
  }
  const right = Math.ceil(number / 2);
  const rows = Math.max(right, 1);
  const height = Math.max(230, rows * 84 + 24);
  const at = (index, many) => height / 2 + (index - (many - 1) / 2) * 84 - BOX.height / 2;
  const list = [...Array(number).keys()].map((index) =>
    index % 2 === 0
      ? { x: width - BOX.width - 4, y: at(index / 2, right), side: 1 }
      : { x: 4, y: at((index - 1) / 2, number - right), side: -1 },
  );
  return { box: BOX, height, middle: { x: width / 2, y: height / 2 }, peers: list };
}

function line(middle, place, box) {
  if (place.side === 0) {
    const y = place.y + box.height / 2;
    return { d: `M ${middle.x - 84} ${middle.y} H 28 Q 18 ${middle.y} 18 ${middle.y + 10} V ${y - 10} Q 18 ${y} 28 ${y} H ${place.x}`, x: place.x + box.width - 6, y: place.y - 12 };
  }
  const x1 = middle.x + place.side * 84;
  const x2 = place.side > 0 ? place.x : place.x + box.width;
  const y2 = place.y + box.height / 2;
  const bend = (x1 + x2) / 2;
  return { d: `M ${x1} ${middle.y} C ${bend} ${middle.y} ${bend} ${y2} ${x2} ${y2}`, x: bend, y: (middle.y + y2) / 2 };
}

/** At most so many characters of a name. */
const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export class Graph {
  /** `choose` is called with the name of a peer that was chosen. */
  constructor(choose) {
    this.element = s("svg", { class: "graph", role: "group", "aria-label": "This node and its peers" });
    this.choose = choose;
    this.form = "";
    this.parts = new Map();
  }

  show(snapshot, rates) {
    const peers = shown(snapshot.peers);
    const width = Math.max(280, Math.floor(this.element.parentNode.clientWidth));
    const form = JSON.stringify([width, snapshot.node, peers.map((one) => one.peer), snapshot.peers.length]);
    if (form !== this.form) this.draw(snapshot, peers, width);
    this.form = form;
    for (const peer of peers) this.update(this.parts.get(peer.peer), peer, rates && rates.peers[peer.peer]);
    const total = rates ? rates.total : null;
    say(this.flow, total ? `out ${rate(total.shipped)} · in ${rate(total.received)}` : "measuring …");
  }

  draw(snapshot, peers, width) {
    const plan = places(peers.length, width);
    const { middle, box } = plan;
    set(this.element, { viewBox: `0 0 ${width} ${plan.height}`, width, height: plan.height });
    this.element.replaceChildren();
    this.parts.clear();
    const lines = s("g", { "aria-hidden": "true" });
    const boxes = s("g", {});
    this.element.append(lines, boxes);
    peers.forEach((peer, index) => {
      const place = plan.peers[index];
      const way = line(middle, place, box);
      const path = s("path", { d: way.d, class: "way" });
      const dots = s("path", { d: way.d, class: "dots" });
      const pill = s("rect", { class: "pill", rx: 11, height: 22 });
      const label = s("text", { class: "pill-text", x: way.x, y: way.y + 4, "text-anchor": place.side === 0 ? "end" : "middle" });
      const badge = s("g", { class: "badge" }, pill, label);
      lines.append(path, dots);
      const name = s("text", { class: "name", x: place.x + 38, y: place.y + 25 }, clip(peer.peer, Math.floor((box.width - 60) / 8.4)));
      const state = s("text", { class: "word", x: place.x + 38, y: place.y + 43 });
      const sign = s("text", { class: "sign", x: place.x + 20, y: place.y + box.height / 2 + 5, "text-anchor": "middle" });
      const group = s(
        "g",
        {
          class: "peer", tabindex: 0, role: "button", "data-peer": peer.peer,
          onclick: () => this.choose(peer.peer),
          onkeydown: (event) => {
            if (event.key === "Enter" || event.key === " ") {
              event.preventDefault();
              this.choose(peer.peer);
            }
          },
        },
        s("rect", { class: "box", x: place.x, y: place.y, width: box.width, height: box.height, rx: 12 }),
        s("circle", { class: "seal", cx: place.x + 20, cy: place.y + box.height / 2, r: 11 }),
        sign, name, state,
      );
      boxes.append(group, badge);
      this.parts.set(peer.peer, { group, path, dots, badge, pill, label, state, sign, way, place, box });
    });
    this.flow = s("text", { class: "flow", x: middle.x, y: middle.y + 18, "text-anchor": "middle" });
    boxes.append(
      s("g", { class: "self", role: "img", "aria-label": `this node, ${snapshot.node}` },
        s("rect", { class: "self-box", x: middle.x - 84, y: middle.y - 34, width: 168, height: 68, rx: 16 }),
        s("text", { class: "self-name", x: middle.x, y: middle.y - 4, "text-anchor": "middle" }, clip(snapshot.node, 16)),
        this.flow),
    );
    if (snapshot.peers.length > peers.length) {
      const rest = snapshot.peers.length - peers.length;
      boxes.append(s("text", { class: "word", x: middle.x, y: plan.height - 6, "text-anchor": "middle" }, `and ${rest} more below`));
    }
    if (!peers.length) {
      boxes.append(s("text", { class: "word", x: middle.x, y: middle.y + 62, "text-anchor": "middle" }, "no peers in its configuration"));
    }
  }

  update(part, peer, speed) {
    const { tone, sign, word } = peerState(peer);
    const moves = speed && (speed.shipped > 0 || speed.received > 0);
    set(part.group, {
      class: `peer ${tone}`,
      "aria-label": `${peer.peer}: ${word}, ${count(peer.waiting, "message")} waiting. ${peerSentence(peer, age)}`,
    });
    set(part.path, { class: `way ${tone}`, "stroke-width": (1.5 + Math.min(5, Math.log10(1 + peer.waiting))).toFixed(1) });
    set(part.dots, { class: moves && tone === "good" ? `dots moves${speed.received > speed.shipped ? " back" : ""}` : "dots" });
    say(part.sign, sign);
    const speaks = speed && (speed.shipped > 0 || speed.received > 0) ? ` · ${rate(Math.max(speed.shipped, speed.received))}` : "";
    const next = peer.state === "resting" && peer.next_try_in > 0 ? ` · again in ${age(peer.next_try_in)}` : "";
    say(part.state, clip(`${word}${speaks}${next}`, Math.floor((part.box.width - 44) / 6.4)));
    const text = peer.waiting ? `${short(peer.waiting)} waiting · ${age(peer.oldest)}` : "";
    say(part.label, text);
    set(part.badge, { class: text ? `badge ${tone}` : "badge empty" });
    const long = 20 + text.length * 6.9;
    const x = part.place.side === 0 ? part.way.x - long + 10 : part.way.x - long / 2;
    set(part.pill, { x: x.toFixed(1), y: part.way.y - 11, width: long.toFixed(1) });
  }
}
