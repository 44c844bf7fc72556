"use strict";
(() => {
  const block = document.getElementById("negprobe-views");
  const choice = block.querySelector("form").elements;
  const sides = ["original", "counterfactual", "difference"];

  // Red for more and blue for less around a meaningful zero; one dark hue where nothing is negative.
  const colours = { signed: ["#2166ac", "#b2182b"], unsigned: ["#ffffff", "#2c0a5e"] };
  const measures = {
    raw: { unit: "attention weight", signed: false },
    norm: { unit: "A · ‖v W_O‖", signed: false },
    similarity: { unit: "cosine", signed: true, bound: 1 },
  };

  // React's own update path: CircuitsVis.render gives no handle to change or remove what it drew, and drawing
  // anew would leak every chart. React takes any class marked isReactComponent as stateful and gives it an
  // `updater`; an element it made (Hello's) serves as the mould for others.
  function Live(props) {
    this.props = props;
    this.state = { shown: null };
    props.ready((shown) => this.updater.enqueueSetState(this, { shown }));
  }
  Live.prototype.isReactComponent = {};
  Live.prototype.render = function () {
    const { shown } = this.state;
    return shown && { ...CircuitsVis.Hello({ name: "" }), ...shown };
  };

  const show = {};
  function mount(side) {
    return new Promise((resolve) => {
      const ready = (update) => { show[side] = update; resolve(); };
      CircuitsVis.render(`negprobe-${side}`, Live, { ready });
    });
  }

  const read = (pair) => JSON.parse(document.getElementById(`negprobe-pair-${pair}`).textContent);
  const largest = (maps) => maps.flat(3).reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const shorten = (token) => ([...token].length <= 14 ? token : [...token].slice(0, 13).join("") + "…");

  function difference(original, counterfactual, [from, to]) {
    return original.map((head, h) =>
      from.map((q, i) => from.map((k, j) => +(counterfactual[h][to[i]][to[j]] - head[q][k]).toFixed(4))));
  }

  function alignedTokens({ original, counterfactual, aligned: [from, to] }) {
    return from.map((i, n) => {
      const [before, after] = [original.tokens[i], counterfactual.tokens[to[n]]];
      return before === after ? before : `${before}→${after}`;
    });
  }

  function writeTokens(article, tokens, marks) {
    const words = tokens.map((token, i) => {
      const word = document.createElement("bdi");
      word.textContent = token;
      word.className = marks(i);
      return word;
    });
    article.querySelector(".negprobe-tokens").replaceChildren(...words.flatMap((word) => [word, " "]));
  }

  function writeScale(article, signed, bound, unit) {
    const [low, bar, high, name] = article.querySelector(".negprobe-scale").children;
    const [negative, positive] = colours[signed ? "signed" : "unsigned"];
    low.textContent = signed ? (-bound).toPrecision(3) : "0";
    high.textContent = bound.toPrecision(3);
    name.textContent = unit;
    bar.style.background = `linear-gradient(to right in lab, ${signed ? negative + ", " : ""}#fff, ${positive})`;
  }

  function drawSide(side, tokens, attention, signed, bound, unit, marks) {
    const article = block.querySelector(`[data-side=${side}]`);
    const [negativeColor, positiveColor] = colours[signed ? "signed" : "unsigned"];
    writeTokens(article, tokens, marks);
    writeScale(article, signed, bound, unit);
    const scale = { negativeColor, positiveColor, minValue: -bound, maxValue: bound, maskUpperTri: false };
    const props = { tokens: tokens.map(shorten), ...scale };
    const head = choice.head.value;
    article.classList.toggle("all-heads", head === "all");
    show[side](head === "all"
      ? { type: CircuitsVis.AttentionHeads, props: { ...props, attention } }
      : { type: CircuitsVis.AttentionPattern, props: { ...props, attention: attention[head], zoomed: true } });
  }

  // All heads of a long statement would take the browser minutes to draw; they can still be asked for.
  const mostCells = 15000;

  function choosePair() {
    const { tokens, raw } = read(choice.pair.value).counterfactual;
    const crowded = raw[0].length * tokens.length ** 2 > mostCells;
    if (crowded && choice.head.value === "all") choice.head.value = "0";
    draw();
  }

  function draw() {
    const pair = read(choice.pair.value);
    const { unit, signed, bound } = measures[choice.measure.value];
    const [from, to] = pair.aligned;
    const maps = ["original", "counterfactual"].map((side) => pair[side][choice.measure.value][choice.layer.value]);
    const change = difference(...maps, pair.aligned);
    const shared = bound ?? largest(maps);
    const cue = pair.counterfactual.cue;
    drawSide("original", pair.original.tokens, maps[0], signed, shared, unit,
      (i) => (from.includes(i) ? "" : "unmatched"));
    drawSide("counterfactual", pair.counterfactual.tokens, maps[1], signed, shared, unit,
      (i) => (cue.includes(i) ? "cue" : to.includes(i) ? "" : "unmatched"));
    drawSide("difference", alignedTokens(pair), change, true, largest(change), `change of ${unit}`,
      (i) => (cue.includes(to[i]) ? "cue" : ""));
  }

  // What the pointer does to a head in one view happens to the same head in the others.
  const heads = (side) => [...document.querySelectorAll(`#negprobe-${side} h4`)];
  function mirror(event) {
    const side = event.target.closest("article")?.dataset.side;
    if (!event.isTrusted || !side) return;
    const head = heads(side).findIndex((name) => name.parentElement.contains(event.target));
    for (const other of sides.filter((name) => name !== side)) {
      heads(other)[head]?.dispatchEvent(new MouseEvent(event.type, { bubbles: true }));
    }
  }
  for (const type of ["click", "mouseover", "mouseout"]) block.addEventListener(type, mirror);

  async function start() {
    await Promise.all(sides.map(mount));
    choosePair();
    block.addEventListener("change", ({ target }) => (target === choice.pair ? choosePair() : draw()));
  }
  // Nothing is drawn before it is first scrolled to.
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    start();
  });
  watch.observe(block);
})();
