// The page: one person's phone at a time, the people it could be, and the weather.

import * as api from "./api.js";
import * as composer from "./composer.js";
import * as conversation from "./conversation.js";
import * as drawers from "./drawers.js";
import * as people from "./people.js";
import * as weather from "./weather.js";

const NEWCOMER = { number: "+16505551234", name: "Ada" };
const LOOK_AGAIN = 3000; // milliseconds
const CONNECTED = "Connected";
const LOST = "Not connected, trying again …";

const title = document.getElementById("phone-title");
const number = document.getElementById("phone-number");
const connection = document.getElementById("connection");

let following = new AbortController();

/** Put the phone of `person` on the screen, and follow what happens on it. */
function pickUp(person) {
  following.abort();
  following = new AbortController();
  const { signal } = following;
  const isNamed = person.name !== person.number;
  title.textContent = isNamed ? `${person.name}’s phone` : person.number;
  number.textContent = isNamed ? person.number : "";
  history.replaceState(null, "", `#${person.number}`);
  people.markCurrent(person.number, conversation.countReceived());
  conversation.clear();
  composer.writeAs(person.number);

  api.follow(person.number, {
    signal,
    onNews(messages) {
      setConnected(true);
      conversation.showNews(messages, (message, reply) => {
        composer.send(person.number, { ...reply, reply_to: message.id });
      });
    },
    onLost: () => setConnected(false),
    async onForgotten() {
      conversation.clear();
      people.forgetRead();
      await api.addPerson(person.number, isNamed ? person.name : null);
      await lookAround();
    },
  }).catch((error) => {
    if (!signal.aborted) {
      throw error;
    }
  });
}

function setConnected(isConnected) {
  connection.textContent = isConnected ? CONNECTED : LOST;
  connection.classList.toggle("lost", !isConnected);
}

async function lookAround() {
  await Promise.all([people.refresh(), weather.refresh()]);
}

async function start() {
  const known = await people.refresh();
  const person = known.find((one) => location.hash === `#${one.number}`) ?? known[0]
    ?? await api.addPerson(NEWCOMER.number, NEWCOMER.name);
  people.choose((one) => {
    pickUp(one);
    drawers.close();
    document.getElementById("text").focus();
  });
  pickUp(person);
}

await api.persist(start, { onLost: () => setConnected(false) });
// Whether the simulator can be reached at all, the phone tells.
const look = () => document.hidden || lookAround().catch(() => {});
look();
setInterval(look, LOOK_AGAIN);
document.addEventListener("visibilitychange", look);
