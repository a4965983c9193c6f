// What the views share: buttons that press one of the node's, questions before it, notes after it, badges.

import { act } from "./api.js";
import { h } from "./dom.js";

/** A badge for a state: sign and word. */
export function badge({ tone, sign, word }) {
  return h("span", { class: `state ${tone}` }, h("span", { "aria-hidden": "true" }, sign), ` ${word}`);
}

/** Say something for some seconds, to readers of screens too. */
export function note(text, tone = "good") {
  const one = h("p", { class: `note ${tone}` }, text);
  document.getElementById("notes").append(one);
  setTimeout(() => one.remove(), 7000);
}

/** Ask before something is done. `asks`: {title, text, button, reason: label or null}. The words, or null. */
export function question(asks) {
  return new Promise((done) => {
    const reason = asks.reason ? h("input", { name: "reason", maxlength: 400, autocomplete: "off" }) : null;
    const dialog = h(
      "dialog", { class: "question", "aria-labelledby": "question-title" },
      h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); dialog.close("yes"); } },
        h("h2", { id: "question-title" }, asks.title), asks.text ? h("p", {}, asks.text) : null,
        reason ? h("label", {}, asks.reason, reason) : null,
        h("div", { class: "buttons" },
          h("button", { type: "button", onclick: () => dialog.close("no") }, "Leave it"),
          h("button", { type: "submit", class: "main" }, asks.button))),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue === "yes" ? { ...(reason && reason.value ? { reason: reason.value } : {}) } : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A button that presses one of the node's. `after` is called when it was done. */
export function press(label, name, words, { asks = null, after = null, title = null, danger = false } = {}) {
  const button = h("button", { type: "button", class: danger ? "danger" : null, "aria-label": title, title, "data-do": name }, label);
  button.addEventListener("click", async () => {
    const more = asks ? await question(asks) : {};
    if (more === null) return;
    button.disabled = true;
    try {
      note((await act(name, { ...words, ...more })).said);
      if (after) await after();
    } catch (error) {
      note(error.message, "bad");
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

/** A table with these columns; its body is for `keyed`. Columns that end in > are numbers. */
export function table(label, columns) {
  const body = h("tbody");
  const head = columns.map((one) => h("th", { scope: "col", class: one.endsWith(">") ? "number" : null }, one.replace(/>$/, "")));
  return { element: h("div", { class: "scroll" }, h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, head)), body)), body };
}
