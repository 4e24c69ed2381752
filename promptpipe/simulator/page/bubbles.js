// One message as the page shows it. Text from outside becomes text nodes, never markup.

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const CALENDAR = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const TICKS = { sent: "one-tick", delivered: "two-ticks", read: "two-ticks", failed: "mark" };
const EMPHASIS = /(?<![\p{L}\p{N}])([*_])(?=\S)([^\n]*?\S)\1(?![\p{L}\p{N}])/gu; // *bold* and _italic_, as on WhatsApp

/** Return the element of a message. `quoted` is the text it answers; `onChoose` gets the reply that was pressed. */
export function makeBubble(message, { quoted, onChoose }) {
  const bubble = element("li", `bubble ${message.mine ? "mine" : "theirs"}`);
  bubble.append(element("span", "unseen", message.mine ? "You: " : "Service: "));
  if (quoted) {
    bubble.append(element("blockquote", "", quoted));
  }
  if (message.interactive) {
    const { header, body, footer } = message.interactive;
    bubble.append(...[[header, "header"], [body, "text"], [footer, "footer"]]
      .filter(([part]) => part)
      .map(([part, kind]) => worded(part.text, kind)));
  } else {
    bubble.append(worded(message.text, "text"));
  }
  bubble.append(makeFoot(message));
  if (message.interactive) {
    bubble.append(makeChoices(message.interactive, onChoose));
  }
  return bubble;
}

/** Show a message's status on its bubble. */
export function showStatus(bubble, status) {
  const tick = bubble.querySelector(".tick");
  if (tick && tick.dataset.status !== status) {
    tick.dataset.status = status;
    tick.title = status;
    tick.querySelector("use").setAttribute("href", `#${TICKS[status]}`);
    tick.querySelector(".unseen").textContent = status;
  }
}

/** Return a new element, with a class or none, that holds a text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) {
    made.className = className;
  }
  made.textContent = text;
  return made;
}

function worded(text, className) {
  const made = element("div", className);
  let end = 0;
  for (const found of text.matchAll(EMPHASIS)) {
    made.append(text.slice(end, found.index), element(found[1] === "*" ? "strong" : "em", "", found[2]));
    end = found.index + found[0].length;
  }
  made.append(text.slice(end));
  return made;
}

function makeFoot(message) {
  const foot = element("div", "foot");
  const at = new Date(message.at);
  const time = element("time", "", CLOCK.format(at));
  time.dateTime = message.at;
  time.title = CALENDAR.format(at);
  foot.append(time);
  if (message.status) {
    const tick = element("span", "tick");
    tick.append(icon(), element("span", "unseen"));
    foot.append(tick);
    showStatus(foot, message.status);
  }
  return foot;
}

function icon() {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(space, "use"));
  return svg;
}

function makeChoices({ type, action }, onChoose) {
  if (type === "button") {
    const choices = element("div", "choices");
    choices.append(...action.buttons.map(({ reply }) => makeChoice(reply, () => onChoose({ button_reply: reply }))));
    return choices;
  }
  const list = element("details", "choices");
  list.append(element("summary", "", action.button));
  for (const section of action.sections) {
    if (section.title) {
      list.append(element("h3", "", section.title));
    }
    list.append(...section.rows.map((row) => makeChoice(row, () => {
      list.open = false;
      onChoose({ list_reply: row });
    })));
  }
  list.addEventListener("toggle", () => list.open && list.scrollIntoView({ block: "nearest" }));
  list.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && list.open) {
      list.open = false;
      list.querySelector("summary").focus();
      event.stopPropagation();
    }
  });
  return list;
}

function makeChoice({ title, description }, onPress) {
  const button = element("button", "", title);
  button.type = "button";
  if (description) {
    button.append(element("small", "", description));
  }
  button.addEventListener("click", onPress);
  return button;
}
