// The list of people, who may also be added elsewhere, and how many messages each has not read here.

import * as api from "./api.js";
import { element } from "./bubbles.js";

const list = document.getElementById("people-list");
const form = document.getElementById("new-person");
const refusal = document.getElementById("new-person-refusal");
const anyUnread = document.getElementById("any-unread");

const entries = new Map(); // number → {person, button}
let read = null; // number → how many messages to this person have been read; what was there before the page is
let current = null;
let pick = () => {};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { "new-number": number, "new-name": name } = form.elements;
  try {
    const person = await api.addPerson(number.value, name.value.trim() || null);
    refusal.textContent = "";
    form.reset();
    await refresh();
    pick(person);
  } catch (error) {
    refusal.textContent = error.message;
  }
});

/** Have `onPick` told of the person whose phone is wanted. */
export function choose(onPick) {
  pick = onPick;
}

/** Mark the person whose phone is shown; of the one before, `count` messages have been read. */
export function markCurrent(number, count) {
  read?.set(current, Math.max(count, read.get(current) ?? 0));
  current = number;
  showAll();
}

/** Show everybody whom the simulator knows, and return them. */
export async function refresh() {
  const people = await api.people();
  read ??= new Map(people.map(({ number, received }) => [number, received]));
  for (const person of people) {
    const entry = entries.get(person.number);
    if (entry) {
      entry.person = person;
    } else {
      add(person);
    }
  }
  const known = new Set(people.map(({ number }) => number));
  for (const [number, { button }] of entries) {
    if (!known.has(number)) {
      button.parentElement.remove();
      entries.delete(number);
      read.delete(number);
    }
  }
  showAll();
  return people;
}

/** Forget who has read what: the simulator has forgotten it too. */
export function forgetRead() {
  read = null;
}

/** Return the first letter of a name; for a number, a sign. */
const initial = ({ name, number }) => (name === number ? "#" : [...name][0].toUpperCase());

function add(person) {
  const button = element("button");
  button.type = "button";
  button.append(...["avatar", "name", "number", "unread"].map((part) => element("span", part)));
  button.querySelector(".avatar").setAttribute("aria-hidden", "true");
  button.addEventListener("click", () => pick(entries.get(person.number).person));
  const item = element("li");
  item.append(button);
  list.append(item);
  entries.set(person.number, { person, button });
}

function showAll() {
  let unreadElsewhere = 0;
  for (const { person, button } of entries.values()) {
    const { number, name, received } = person;
    if (number === current) {
      read?.set(number, received);
      button.setAttribute("aria-current", "true");
    } else {
      button.removeAttribute("aria-current");
    }
    const unread = Math.max(0, received - (read?.get(number) ?? 0));
    unreadElsewhere += unread;
    show(button, ".avatar", initial(person));
    show(button, ".name", name);
    show(button, ".number", name === number ? "" : number);
    show(button, ".unread", unread ? `${unread} new` : "");
  }
  anyUnread.hidden = unreadElsewhere === 0;
}

function show(button, part, text) {
  const place = button.querySelector(part);
  if (place.textContent !== text) {
    place.textContent = text;
  }
}
