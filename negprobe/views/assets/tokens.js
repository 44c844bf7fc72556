"use strict";
// The strips of tokens: pointing at a token marks the aligned tokens in the other strips, and colours all strips by its attention.
const NegprobeTokens = (() => {
  // strips: {side: element}. partners(side, index) returns the tokens to mark by side, shares(marked) the colours of each
  // strip, and describe(place, marked) writes the summary.
  function linked(strips, { partners, shares, describe }) {
    let pointed = null, locked = null;

    const buttons = (side) => [...strips[side].querySelectorAll("button")];
    const chosen = () => pointed ?? locked;

    function mark() {
      const token = chosen();
      const marked = token ? partners(token.side, token.index) : {};
      const colours = token ? shares(marked) : {};
      for (const side of Object.keys(strips)) {
        buttons(side).forEach((button, i) => {
          button.classList.toggle("chosen", marked[side] === i);
          const share = colours[side]?.[i] ?? 0;
          button.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.abs(share)))}%`);
          button.classList.toggle("less", share < 0);
          button.setAttribute("aria-pressed", String(locked?.side === side && locked.index === i));
        });
      }
      describe(token, marked);
    }

    function place({ target }) {
      const button = target.closest?.("button");
      const side = Object.keys(strips).find((name) => strips[name].contains(button));
      return side ? { side, index: buttons(side).indexOf(button) } : null;
    }

    const same = (a, b) => a && b && a.side === b.side && a.index === b.index;

    function moved(event) {
      const token = place(event);
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (token && step) {
        event.preventDefault();
        buttons(token.side)[token.index + step]?.focus();
      }
    }

    for (const strip of Object.values(strips)) {
      strip.addEventListener("pointerover", (event) => { pointed = place(event); mark(); });
      strip.addEventListener("pointerleave", () => { pointed = null; mark(); });
      strip.addEventListener("focusin", (event) => { pointed = place(event); mark(); });
      strip.addEventListener("focusout", () => { pointed = null; mark(); });
      strip.addEventListener("click", (event) => {
        const token = place(event);
        if (!token) return;
        locked = same(token, locked) ? null : token;
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
        // The tab key stops once per strip; arrow keys move within it.
        button.tabIndex = i ? -1 : 0;
        return button;
      });
      strips[side].replaceChildren(...words.flatMap((word) => [word, " "]));
    }

    // Clears the selection when other tokens are shown.
    function forget() {
      pointed = locked = null;
      mark();
    }

    return { write, mark, forget };
  }

  return { linked };
})();
