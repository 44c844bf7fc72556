"use strict";
// The strips of tokens: pointing at one marks its partner in the others, and colours every strip by what it reads.
const NegprobeTokens = (() => {
  // strips: {side: element}; partners(side, index) and reading(side, index) give what to mark and to colour.
  function linked(strips, { partners, reading, tell }) {
    let pointed = null, locked = null;

    const buttons = (side) => [...strips[side].querySelectorAll("button")];
    const chosen = () => pointed ?? locked;

    function mark() {
      const here = chosen();
      const marked = here ? partners(here.side, here.index) : {};
      const shares = here ? reading(marked) : {};
      for (const side of Object.keys(strips)) {
        buttons(side).forEach((button, i) => {
          button.classList.toggle("chosen", marked[side] === i);
          const share = shares[side]?.[i] ?? 0;
          button.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.abs(share)))}%`);
          button.classList.toggle("less", share < 0);
          button.setAttribute("aria-pressed", String(locked?.side === side && locked.index === i));
        });
      }
      tell(here, marked);
    }

    function place({ target }) {
      const button = target.closest?.("button");
      const side = Object.keys(strips).find((name) => strips[name].contains(button));
      return side ? { side, index: buttons(side).indexOf(button) } : null;
    }

    const same = (a, b) => a && b && a.side === b.side && a.index === b.index;

    function moved(event) {
      const here = place(event);
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (here && step) {
        event.preventDefault();
        buttons(here.side)[here.index + step]?.focus();
      }
    }

    for (const strip of Object.values(strips)) {
      strip.addEventListener("pointerover", (event) => { pointed = place(event); mark(); });
      strip.addEventListener("pointerleave", () => { pointed = null; mark(); });
      strip.addEventListener("focusin", (event) => { pointed = place(event); mark(); });
      strip.addEventListener("focusout", () => { pointed = null; mark(); });
      strip.addEventListener("click", (event) => {
        const here = place(event);
        if (!here) return;
        locked = same(here, locked) ? null : here;
        mark();
      });
      strip.addEventListener("keydown", moved);
    }
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      pointed = locked = null;
      mark();
    });

    function write(side, tokens, classes) {
      const words = tokens.map((token, i) => {
        const button = document.createElement("button");
        const word = document.createElement("bdi");
        word.textContent = token;
        button.append(word);
        button.type = "button";
        button.className = classes(i);
        // One stop of the tab key a strip; arrows go on from there.
        button.tabIndex = i ? -1 : 0;
        return button;
      });
      strips[side].replaceChildren(...words.flatMap((word) => [word, " "]));
    }

    // The tokens are others: nothing is kept.
    function forget() {
      pointed = locked = null;
      mark();
    }

    return { write, mark, forget };
  }

  return { linked };
})();
