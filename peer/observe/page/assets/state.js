// The state at the top of a page, in a word and its reason.

import { byId, setProse, setText } from "./dom.js";

const title = document.title;

/** Show the state; who listens is told when it changes, not each time that its reason does. */
export function say(word, reason) {
  if (byId("state-word").textContent !== word) {
    setText(byId("announce"), `${word}: ${reason}`);
    document.title = `${word} – ${title}`;
  }
  setText(byId("state-word"), word);
  setProse(byId("state-reason"), reason);
}
