"use strict";
// A table of the pairs with the mean of each metric over all heads; a click on a column header sorts by it.
const NegprobePairs = (() => {
  const element = (tag, ...children) => {
    const made = document.createElement(tag);
    made.append(...children);
    return made;
  };

  const header = (scope, text, clicked) => {
    const button = element("button", text);
    button.type = "button";
    button.addEventListener("click", clicked);
    const made = element("th", button);
    made.scope = scope;
    return made;
  };

  function mean(values) {
    const known = values.filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  }

  function listed(details, { pairs, metrics, names }, choose) {
    // The sort keys of each pair: its number, then its metrics.
    const numbers = pairs.map((pair, number) => [-number, ...metrics.map((metric) => mean(pair.metrics[metric]))]);
    const rows = pairs.map((pair, number) => {
      const cells = numbers[number].slice(1).map((value) => element("td", value === null ? "–" : value.toPrecision(3)));
      return element("tr", header("row", pair.name, () => choose(number)), ...cells);
    });
    const body = element("tbody", ...rows);

    let sorted = null, up = false;
    const columns = ["pair", ...metrics.map((metric) => names[metric])].map((name, column) => header("col", name, () => {
      up = sorted === column && !up;
      sorted = column;
      const value = (number) => numbers[number][column] ?? -Infinity;
      const order = [...rows.keys()].sort((a, b) => (up ? value(a) - value(b) : value(b) - value(a)));
      body.append(...order.map((number) => rows[number]));
      for (const other of columns) other.removeAttribute("aria-sort");
      columns[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    }));

    const table = element("table", element("caption", "Means over all heads"), element("thead", element("tr", ...columns)), body);
    const scroll = element("div", table);
    scroll.className = "negprobe-scroll";
    details.append(scroll);
    return { select: (chosen) => rows.forEach((row, number) => row.setAttribute("aria-current", String(number === +chosen))) };
  }

  return { listed };
})();
