"use strict";
(() => {
  const block = document.getElementById("negprobe-views");
  const index = JSON.parse(document.getElementById("negprobe-index").textContent);
  const choice = Object.fromEntries([...block.querySelectorAll("select")].map((select) => [select.name, select]));
  const sides = ["original", "counterfactual", "difference"];

  // Red for more and blue for less around a meaningful zero; one dark hue where nothing is negative.
  const colours = { signed: ["#2166ac", "#b2182b"], unsigned: ["#ffffff", "#2c0a5e"] };
  const measures = {
    raw: { unit: "attention weight", signed: false },
    norm: { unit: "A · ‖v W_O‖", signed: false },
    similarity: { unit: "cosine", signed: true, bound: 1 },
    zeroing: { unit: "change of the output, 1 − cos", signed: false },
  };

  // Updates go through React itself: CircuitsVis.render returns no handle to change or remove a view, and rendering
  // again would leak the charts. React treats any class marked isReactComponent as stateful and gives it an `updater`;
  // an element created by CircuitsVis (Hello's) serves as the template for others.
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

  const largest = (maps) => maps.flat(3).reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const shorten = (token) => ([...token].length <= 14 ? token : [...token].slice(0, 13).join("") + "…");
  const signedNumber = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

  function difference(original, counterfactual, [from, to]) {
    return original.map((head, h) =>
      from.map((q, i) => from.map((k, j) => +(counterfactual[h][to[i]][to[j]] - head[q][k]).toFixed(4))));
  }

  function alignedTokens({ original, counterfactual, aligned: [from, to] }) {
    return from.map((i, n) => {
      const [before, after] = [original[i], counterfactual[to[n]]];
      return before === after ? before : `${before}→${after}`;
    });
  }

  function writeScale(scale, signed, bound, unit) {
    const [low, bar, high, name] = scale.children;
    const [negative, positive] = colours[signed ? "signed" : "unsigned"];
    low.textContent = signed ? (-bound).toPrecision(3) : "0";
    high.textContent = bound.toPrecision(3);
    name.textContent = unit;
    bar.style.background = `linear-gradient(to right in lab, ${signed ? negative + ", " : ""}#fff, ${positive})`;
  }

  const article = (side) => block.querySelector(`[data-side=${side}]`);
  const zeroing = () => choice.measure.value === "zeroing";
  // Value zeroing has one map for all heads of a layer.
  const headChosen = () => (zeroing() ? "0" : choice.head.value);

  function drawSide(side, tokens, attention, signed, bound, unit) {
    const [negativeColor, positiveColor] = colours[signed ? "signed" : "unsigned"];
    writeScale(article(side).querySelector(".negprobe-scale"), signed, bound, unit);
    const scale = { negativeColor, positiveColor, minValue: -bound, maxValue: bound, maskUpperTri: false };
    const props = { tokens: tokens.map(shorten), ...scale };
    const head = headChosen();
    article(side).classList.toggle("all-heads", head === "all");
    show[side](head === "all"
      ? { type: CircuitsVis.AttentionHeads, props: { ...props, attention } }
      : { type: CircuitsVis.AttentionPattern, props: { ...props, attention: attention[head], zoomed: true } });
  }

  // The maps of each pair, decoded when it is first chosen.
  const unpacked = new Map();
  function mapsOf(number) {
    if (!unpacked.has(number)) {
      const { original, counterfactual, zeroing: has } = index.pairs[number];
      const text = document.getElementById(`negprobe-pair-${number}`).textContent;
      const shape = { bits: index.bits, layers: index.layers, heads: index.heads };
      const sizes = [original.length, counterfactual.length];
      unpacked.set(number, NegprobeMaps.unpacked(text, { ...shape, sizes, zeroing: has }));
    }
    return unpacked.get(number);
  }

  // The maps that are shown: a list of heads for each side.
  let drawn = null;

  // Drawing all heads of a long statement would take the browser minutes, so it happens only if the user chooses "all".
  const mostCells = 15000;

  async function choosePair() {
    const pair = index.pairs[choice.pair.value];
    const crowded = index.heads * pair.counterfactual.length ** 2 > mostCells;
    if (crowded && choice.head.value === "all") choice.head.value = "0";
    const option = choice.measure.querySelector("[value=zeroing]");
    option.disabled = !pair.zeroing;
    if (!pair.zeroing && zeroing()) choice.measure.value = "raw";
    // Clear the selection before the tokens change, because the marked tokens belong to the previous pair.
    drawn = null;
    strips.forget();
    const [from, to] = pair.aligned;
    const lone = (matched) => (i) => (matched.includes(i) ? "" : "unmatched");
    strips.write("original", pair.original, lone(from));
    strips.write("counterfactual", pair.counterfactual, (i) => (pair.cue.includes(i) ? "cue" : lone(to)(i)));
    strips.write("difference", alignedTokens(pair), (i) => (pair.cue.includes(to[i]) ? "cue" : ""));
    pairs.select(choice.pair.value);
    drawOverview();
    await draw();
  }

  async function draw() {
    const number = choice.pair.value, pair = index.pairs[number];
    const sideMaps = await mapsOf(number);
    // Another pair may have been chosen while this one was decoded.
    if (number !== choice.pair.value) return;
    const { unit, signed, bound } = measures[choice.measure.value];
    choice.head.disabled = zeroing();
    const maps = sideMaps.map((side) => side(choice.measure.value)[choice.layer.value]).map((map) => (zeroing() ? [map] : map));
    const change = difference(...maps, pair.aligned);
    const shared = bound ?? largest(maps);
    drawn = { original: maps[0], counterfactual: maps[1], difference: change };
    drawSide("original", pair.original, maps[0], signed, shared, unit);
    drawSide("counterfactual", pair.counterfactual, maps[1], signed, shared, unit);
    drawSide("difference", alignedTokens(pair), change, true, largest(change), `change of ${unit}`);
    overview.select(+choice.layer.value, headChosen() === "all" || zeroing() ? null : +choice.head.value);
    strips.mark();
  }

  // The indices of one token in each strip: its own, that of its partner, and that of both among the aligned tokens.
  function partners(side, i) {
    const [from, to] = index.pairs[choice.pair.value].aligned;
    const at = { original: from.indexOf(i), counterfactual: to.indexOf(i), difference: i }[side];
    return at < 0 ? { [side]: i } : { original: from[at], counterfactual: to[at], difference: at };
  }

  // The rows of the marked tokens, averaged over heads if all heads are shown.
  function rows(marked) {
    if (!drawn) return {};
    return Object.fromEntries(Object.entries(marked).map(([side, query]) => {
      const heads = headChosen() === "all" ? drawn[side] : [drawn[side][headChosen()]];
      return [side, drawn[side][0][query].map((_, key) => heads.reduce((sum, head) => sum + head[query][key], 0) / heads.length)];
    }));
  }

  // The rows of the marked tokens relative to their largest value; original and counterfactual share a scale.
  function shares(marked) {
    const bySide = rows(marked);
    return Object.fromEntries(Object.entries(bySide).map(([side, row]) => {
      const sameScale = side === "difference" ? [row] : Object.entries(bySide).filter(([name]) => name !== "difference").map(([, r]) => r);
      const bound = largest(sameScale);
      return [side, row.map((value) => value / bound)];
    }));
  }

  const summary = document.getElementById("negprobe-summary");
  function describe(token, marked) {
    if (!token || !drawn) {
      summary.textContent = "";
      return;
    }
    const pair = index.pairs[choice.pair.value];
    const tokens = { ...pair, difference: alignedTokens(pair) };
    const { unit } = measures[choice.measure.value];
    const where = headChosen() === "all" ? "mean over heads" : zeroing() ? "all heads" : `head ${headChosen()}`;
    const parts = Object.entries(rows(marked)).map(([side, row]) => {
      const order = row.map((_, key) => key).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, 3);
      const number = (value) => (side === "difference" || value < 0 ? signedNumber(value) : value.toFixed(3));
      return `${side}: ${order.map((key) => `${shorten(tokens[side][key])} ${number(row[key])}`).join(", ")}`;
    });
    const alone = "difference" in marked ? "" : ", which has no aligned partner";
    const name = shorten(tokens[token.side][token.index]);
    summary.textContent = `At “${name}”${alone}, layer ${choice.layer.value}, ${where}, ${unit}. ${parts.join("; ")}.`;
  }

  const strips = NegprobeTokens.linked(
    Object.fromEntries(sides.map((side) => [side, article(side).querySelector(".negprobe-tokens")])),
    { partners, shares, describe },
  );

  let overview = null, pairs = null;
  function drawOverview() {
    const name = choice.metric.value;
    const values = index.pairs[choice.pair.value].metrics[name];
    const known = values.filter((value) => value !== null);
    const bound = Math.max(...known.map(Math.abs), 0) || 1;
    const signed = known.some((value) => value < 0);
    const place = block.querySelector(".negprobe-overview");
    place.classList.toggle("signed", signed);
    overview.colour(values, index.names[name], bound);
    writeScale(place.querySelector(".negprobe-scale"), signed, bound, index.units[name]);
  }

  function startOverview() {
    choice.metric.replaceChildren(...index.metrics.map((name) => new Option(index.names[name], name)));
    overview = NegprobeOverview.drawn(document.getElementById("negprobe-overview"), {
      layers: index.layers,
      heads: index.heads,
      choose(layer, head) {
        choice.layer.value = layer;
        if (!zeroing()) choice.head.value = head;
        draw();
      },
    });
  }

  // Pointer events on a head in one view are repeated on the same head in the other views.
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
    startOverview();
    const list = document.getElementById("negprobe-list");
    list.hidden = index.pairs.length < 2;
    pairs = NegprobePairs.listed(list, index, (number) => { choice.pair.value = number; choosePair(); });
    await Promise.all(sides.map(mount));
    await choosePair();
    NegprobePatching.started(document.getElementById("negprobe-patching"), index.sweeps, { colours: colours.signed, writeScale });
    choice.pair.addEventListener("change", choosePair);
    choice.metric.addEventListener("change", drawOverview);
    for (const name of ["layer", "head", "measure"]) choice[name].addEventListener("change", draw);
  }
  // Drawing starts when the views are first scrolled into sight.
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    start();
  });
  watch.observe(block);
})();
