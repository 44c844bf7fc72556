"use strict";
// A grid of layers and heads, coloured by one metric; a click on a cell chooses the head.
const NegprobeOverview = (() => {
  function drawn(table, { layers, heads, choose }) {
    const cells = [];
    const head = document.createElement("tr");
    head.append(...["layer \\ head", ...Array(heads).keys()].map((name) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      return cell;
    }));
    const rows = [...Array(layers).keys()].map((layer) => {
      const row = document.createElement("tr");
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = layer;
      row.append(name);
      cells.push([...Array(heads).keys()].map((number) => {
        const cell = document.createElement("td");
        const button = document.createElement("button");
        button.type = "button";
        button.tabIndex = layer || number ? -1 : 0;
        button.addEventListener("click", () => choose(layer, number));
        cell.append(button);
        row.append(cell);
        return button;
      }));
      return row;
    });
    table.replaceChildren(head, ...rows);

    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    table.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const layer = cells.findIndex((row) => row.includes(event.target));
      if (!step || layer < 0) return;
      event.preventDefault();
      cells[layer + step[0]]?.[cells[layer].indexOf(event.target) + step[1]]?.focus();
    });
    table.addEventListener("focusin", ({ target }) => {
      for (const button of cells.flat()) button.tabIndex = button === target ? 0 : -1;
    });

    // values[layer * heads + head], null where the metric is undefined.
    function colour(values, name, bound) {
      cells.forEach((row, layer) => row.forEach((button, number) => {
        const value = values[layer * heads + number];
        const shown = value === null ? "undefined" : value.toPrecision(3);
        button.style.setProperty("--share", value === null ? "0%" : `${Math.round((100 * Math.abs(value)) / bound)}%`);
        button.classList.toggle("less", value < 0);
        button.textContent = value === null ? "–" : "";
        button.title = button.ariaLabel = `layer ${layer}, head ${number}: ${name} ${shown}`;
      }));
    }

    function select(layer, number) {
      cells.forEach((row, l) => row.forEach((button, h) =>
        button.setAttribute("aria-current", String(l === layer && (number === null || h === number)))));
    }

    return { colour, select };
  }

  return { drawn };
})();
