// The knobs: what goes wrong between the service and the phones.

import * as api from "./api.js";

const form = document.getElementById("knobs");
const refusal = document.getElementById("knobs-refusal");
const foul = document.getElementById("foul");
const knobs = [...form.querySelectorAll("[data-knob]")];
const isShare = (knob) => knob.querySelector("[type=range]") !== null;

let turning = Promise.resolve(); // one at a time: each builds on what the one before has set

form.addEventListener("input", ({ target }) => {
  if (target.type === "range") {
    target.closest(".knob").querySelector("[type=number]").value = target.value;
  }
});
form.addEventListener("change", ({ target }) => {
  const knob = target.closest("[data-knob]");
  const change = { [knob.dataset.knob]: setting(knob, target) };
  turn(async () => ({ ...(await api.faults()), ...change }));
});
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("calm").addEventListener("click", () => turn(async () => ({})));

/** Show the knobs as they are, unless somebody has a hand on them. */
export async function refresh() {
  if (!form.contains(document.activeElement) && refusal.textContent === "") {
    show(await api.faults());
  }
}

function turn(makeFaults) {
  turning = turning.then(async () => {
    try {
      show(await api.setFaults(await makeFaults()));
      refusal.textContent = "";
    } catch (error) {
      refusal.textContent = error.message;
    }
  });
}

/** Return what a knob is set to. An empty field is null, and the simulator says what it thinks of that. */
function setting(knob, target) {
  const number = target.value === "" ? null : Number(target.value);
  if (knob.dataset.knob === "statuses") {
    return [...knob.querySelectorAll(":checked")].map((box) => box.value);
  }
  return isShare(knob) ? { share: number === null ? null : number / 100 } : number;
}

function show(faults) {
  const shares = knobs.filter(isShare).map((knob) => remaining(faults[knob.dataset.knob]));
  foul.hidden = faults.latency === 0 && shares.every((share) => share === 0);
  for (const knob of knobs) {
    const value = faults[knob.dataset.knob];
    for (const input of knob.querySelectorAll("input")) {
      if (input.type === "checkbox") {
        input.checked = value.includes(input.value);
      } else if (input.type === "range" || input !== document.activeElement) {
        input.value = isShare(knob) ? Math.round(1000 * remaining(value)) / 10 : value;
      }
    }
  }
}

/** Return the share of a fault, which is none when it has happened as often as it should. */
const remaining = ({ share, times }) => (times === 0 ? 0 : share);
