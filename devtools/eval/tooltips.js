// One tip for everything that has a data-tip; hovering a word lights the same word in the other lanes. Words that are
// wider than their box are condensed to fit, at most to two thirds: below that nobody could read them.
(() => {
  const tip = document.getElementById("tip");
  const light = (word, on) => {
    const rows = word.closest(".rows");
    if (!rows || !word.dataset.w) return;
    for (const same of rows.querySelectorAll(`[data-w="${word.dataset.w}"]`)) same.classList.toggle("lit", on);
  };
  let at = null;
  document.addEventListener("mousemove", (event) => {
    const now = event.target.closest("[data-tip]");
    if (now !== at) {
      if (at) light(at, false);
      if (now) light(now, true);
      at = now;
      tip.hidden = !now;
      tip.textContent = now ? now.dataset.tip : "";
    }
    if (!now) return;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + height + 22 > innerHeight ? event.clientY - height - 10 : event.clientY + 16}px`;
  });
  const condense = (card) => {
    for (const text of card.querySelectorAll(".word text")) {
      const room = text.parentNode.width.baseVal.value - 6, usual = text.getComputedTextLength();
      if (usual <= room) continue;
      text.setAttribute("textLength", Math.max(room, 0.66 * usual));
      text.setAttribute("lengthAdjust", "spacingAndGlyphs");
    }
  };
  for (const card of document.querySelectorAll("details")) {
    if (card.open) condense(card);
    else card.addEventListener("toggle", () => condense(card), { once: true });
  }
})();
