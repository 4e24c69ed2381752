// What is being written, for each person, and its way to the simulator, in the order in which it was sent.

import * as api from "./api.js";
import { scrollToEnd } from "./conversation.js";

const form = document.getElementById("composer");
const text = document.getElementById("text");
const refusal = document.getElementById("not-sent");

const drafts = new Map(); // number → what its person has written and not sent
const outgoing = []; // {number, utterance}
let writer = null;

text.addEventListener("input", grow);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const body = text.value.trim();
  if (body && writer) {
    setText("");
    send(writer, { text: body });
  }
  text.focus();
});

/** Let the person with `number` write. */
export function writeAs(number) {
  if (writer !== null) {
    drafts.set(writer, text.value);
    setText(drafts.get(number) ?? "");
    refusal.textContent = "";
  }
  writer = number;
}

/** Send an utterance after all that were sent before it. A text that could not be sent is put back. */
export async function send(number, utterance) {
  if (outgoing.push({ number, utterance }) > 1) {
    return; // the call that sends the first sends them all
  }
  try {
    for (; outgoing.length > 0; outgoing.shift()) {
      await api.say(outgoing[0].number, outgoing[0].utterance);
      refusal.textContent = "";
    }
    scrollToEnd();
  } catch (error) {
    refusal.textContent = `Not sent. ${error.message}`;
    outgoing.splice(0).reverse().forEach(putBack);
  }
}

function putBack({ number, utterance }) {
  const before = (rest) => [utterance.text, rest].filter(Boolean).join("\n");
  if (number === writer) {
    setText(before(text.value));
  } else {
    drafts.set(number, before(drafts.get(number)));
  }
}

function setText(value) {
  text.value = value;
  grow();
}

function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}
