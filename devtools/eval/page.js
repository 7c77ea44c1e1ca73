// One tip for everything that has a data-tip; hovering a word lights the same word in the other lanes.
const tip = document.getElementById("tip");
let at = null;
const light = (on) => {
  const same = at?.dataset.w && at.closest(".rows").querySelectorAll(`[data-w="${at.dataset.w}"]`);
  for (const word of same || []) word.classList.toggle("lit", on);
};
document.addEventListener("mousemove", (event) => {
  light(false);
  at = event.target.closest("[data-tip]");
  light(true);
  tip.hidden = !at;
  if (!at) return;
  tip.textContent = at.dataset.tip;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + height + 22 > innerHeight ? event.clientY - height - 10 : event.clientY + 16}px`;
});
// Words wider than their box are condensed, at most to two thirds: below that nobody could read them.
const condense = (card) => {
  for (const text of card.querySelectorAll(".word text")) {
    const room = text.parentNode.width.baseVal.value - 6, usual = text.getComputedTextLength();
    if (usual <= room) continue;
    text.setAttribute("textLength", Math.max(room, 0.66 * usual));
    text.setAttribute("lengthAdjust", "spacingAndGlyphs");
  }
};
// A click on a word plays it: from its start to its end in the recording of its card, and at least so many seconds.
const SHORTEST_S = 0.12;
let heard = null; // { audio, until, word } while a word is played
const silence = () => {
  heard?.audio.pause();
  heard?.word.classList.remove("playing");
  heard = null;
};
const watch = () => {
  if (!heard) return;
  if (heard.audio.ended || heard.audio.currentTime >= heard.until) silence();
  else requestAnimationFrame(watch);
};
document.addEventListener("click", (event) => {
  const word = event.target.closest?.(".word"), audio = word?.closest("details").querySelector("audio");
  if (!audio) return;
  silence();
  for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  const start = Number(word.dataset.s);
  heard = { audio, word, until: Math.max(Number(word.dataset.e), start + SHORTEST_S) };
  word.classList.add("playing");
  audio.currentTime = start;
  audio.play().then(watch, silence);
});
// by its own button the whole recording plays, and a word that was playing ends nothing
document.addEventListener("pause", () => { if (heard?.audio.paused) silence(); }, true);
document.addEventListener("error", (event) => {
  if (event.target.tagName === "AUDIO") event.target.nextElementSibling.hidden = false;
}, true);
for (const card of document.querySelectorAll("details.recording")) {
  if (card.open) condense(card);
  else card.addEventListener("toggle", () => condense(card), { once: true });
}
