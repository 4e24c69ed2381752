// The panels beside the phone: always there on a wide screen; on a narrow one, drawers, one at a time.

const wide = matchMedia("(min-width: 1080px)"); // as in panels.css
const shade = document.getElementById("shade");
const behind = document.querySelectorAll(".masthead, .phone");

let opener = null; // the button of the drawer that is open
const panel = () => document.getElementById(opener.getAttribute("aria-controls"));

for (const button of document.querySelectorAll(".opens")) {
  button.addEventListener("click", () => open(button));
}
for (const button of document.querySelectorAll(".closes")) {
  button.addEventListener("click", close);
}
shade.addEventListener("click", close);
wide.addEventListener("change", close);
document.addEventListener("keydown", ({ key }) => key === "Escape" && close());

/** Close the drawer that is open, if one is, and go back to where it was opened. */
export function close() {
  if (opener !== null) {
    panel().classList.remove("open");
    setBehind(false);
    opener.focus();
    opener = null;
  }
}

function open(button) {
  opener = button;
  panel().classList.add("open");
  setBehind(true);
  panel().querySelector(".closes").focus();
}

function setBehind(isBehind) {
  opener.setAttribute("aria-expanded", isBehind);
  shade.hidden = !isBehind;
  behind.forEach((part) => { part.inert = isBehind; });
}
