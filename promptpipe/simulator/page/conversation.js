// The conversation on the phone: bubbles in order of arrival, and where in them one is reading.

import { makeBubble, showStatus } from "./bubbles.js";

const NEAR_THE_END = 40; // pixels

const log = document.getElementById("log");
const bubbles = document.getElementById("bubbles");
const hint = document.getElementById("hint");
const jump = document.getElementById("jump");

const shown = new Map(); // message id → its element
let isAtEnd = true;

log.addEventListener("scroll", () => {
  isAtEnd = isNearEnd();
  jump.hidden ||= isAtEnd;
});
new ResizeObserver(() => isAtEnd && scrollToEnd()).observe(log);
jump.addEventListener("click", scrollToEnd);

/** Show an empty phone, until `showNews` brings what is on it. */
export function clear() {
  // Nobody wants a whole history read out: until it is there, the log is silent.
  log.setAttribute("aria-live", "off");
  shown.clear();
  bubbles.replaceChildren();
  hint.hidden = true;
  scrollToEnd();
}

/** Add messages that are new, and show the new status of the others. `onChoose(message, reply)` is told of choices. */
export function showNews(messages, onChoose) {
  const isLive = log.getAttribute("aria-live") === "polite";
  const added = [];
  isAtEnd = isNearEnd();
  for (const message of messages) {
    const bubble = shown.get(message.id);
    if (bubble) {
      showStatus(bubble, message.status);
    } else {
      const quoted = shown.get(message.reply_to)?.querySelector(".text").textContent;
      const made = makeBubble(message, { quoted, onChoose: (reply) => onChoose(message, reply) });
      made.classList.toggle("arriving", isLive);
      shown.set(message.id, made);
      added.push(made);
    }
  }
  bubbles.append(...added);
  hint.hidden = shown.size > 0;
  if (isAtEnd) {
    scrollToEnd();
  } else if (added.length > 0) {
    jump.hidden = false;
  }
  requestAnimationFrame(() => log.setAttribute("aria-live", "polite"));
}

const isNearEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_THE_END;

/** Return how many messages from the service are shown. */
export function countReceived() {
  return bubbles.querySelectorAll(".theirs").length;
}

/** Show the latest message. */
export function scrollToEnd() {
  isAtEnd = true;
  jump.hidden = true;
  log.scrollTop = log.scrollHeight;
}
