"use strict";
// The tokens of one statement, coloured by the effect of patching them, with one line per layer.
const NegprobePatching = (() => {
  const name = "negprobe-patched";

  function started(block, sweeps, { colours: [negativeColor, positiveColor], writeScale }) {
    block.hidden = !sweeps.length;
    if (block.hidden) return;
    const choice = block.querySelector("select");
    choice.replaceChildren(...sweeps.map(({ title }, i) => new Option(title, i)));

    function draw() {
      const { tokens, layers, effects } = sweeps[choice.value];
      // The scale reaches at least 1, so that small effects look small.
      const bound = Math.max(1, ...effects.flat().map((effect) => Math.abs(effect ?? 0)));
      writeScale(block.querySelector(".negprobe-scale"), true, bound, "effect: 0 is the answer of the unpatched run, 1 that of the other run; tokens without an aligned partner are white");
      block.querySelector(".negprobe-lines").replaceChildren(...layers.map((layer, i) => {
        const line = document.createElement("div");
        const title = document.createElement("h4");
        const view = document.createElement("div");
        title.textContent = layer;
        view.id = `${name}-${i}`;
        line.append(title, view);
        return line;
      }));
      effects.forEach((row, i) => CircuitsVis.render(`${name}-${i}`, CircuitsVis.ColoredTokens, {
        tokens: tokens.map((token) => `${token} `),
        // A token that is not aligned has no effect.
        values: row.map((effect) => effect ?? 0),
        minValue: -bound,
        maxValue: bound,
        negativeColor,
        positiveColor,
      }));
    }

    choice.addEventListener("change", draw);
    draw();
  }

  return { started };
})();
