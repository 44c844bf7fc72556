"use strict";
// Decodes the maps of one pair, encoded by page/packing.py, into arrays [layer][head][query][key] (zeroing: [layer][query][key]).
const NegprobeMaps = (() => {
  async function inflated(text) {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  const range = (n) => [...Array(n).keys()];

  function reader(buffer, bits) {
    const [Unsigned, Signed] = bits === 16 ? [Uint16Array, Int16Array] : [Uint8Array, Int8Array];
    let at = 0;
    const take = (Kind, n) => {
      const part = new Kind(buffer, at, n);
      at += part.byteLength;
      return part;
    };
    return {
      floats: (n) => take(Float32Array, n),
      shares: (n) => take(Unsigned, n),
      cosines: (n) => take(Signed, n),
    };
  }

  // Rounded to the digits that quantisation preserves.
  const rounded = (value) => +value.toFixed(4);

  function square(n, value) {
    return range(n).map((q) => range(n).map((k) => rounded(value(q, k))));
  }

  async function unpacked(text, { bits, layers, heads, sizes, zeroing }) {
    const read = reader(await inflated(text), bits);
    const most = 2 ** bits - 1, mostSigned = 2 ** (bits - 1) - 1;
    const numbers = sizes.map((n) => ({
      raw: read.floats(layers * heads),
      norms: read.floats(layers * heads * n),
      zeroing: zeroing && read.floats(layers),
    }));
    return sizes.map((n, side) => {
      const { raw, norms, zeroing: scales } = numbers[side];
      const triangle = (n * (n + 1)) / 2;
      const shares = read.shares(layers * heads * n * n);
      const cosines = read.cosines(layers * heads * triangle);
      const whole = zeroing && read.shares(layers * n * n);
      const weight = (i, q, k) => (shares[(i * n + q) * n + k] * raw[i]) / most;
      const cosine = (i, q, k) => {
        const [row, column] = q > k ? [q, k] : [k, q];
        return cosines[i * triangle + (row * (row + 1)) / 2 + column] / mostSigned;
      };
      const maps = (value) => range(layers).map((l) => range(heads).map((h) =>
        square(n, (q, k) => value(l * heads + h, q, k))));
      // Each measure is decoded when it is first shown.
      const made = {};
      const measures = {
        raw: () => maps(weight),
        norm: () => maps((i, q, k) => weight(i, q, k) * norms[i * n + k]),
        similarity: () => maps(cosine),
        zeroing: () => zeroing && range(layers).map((l) => square(n, (q, k) => (whole[(l * n + q) * n + k] * scales[l]) / most)),
      };
      return (measure) => (made[measure] ??= measures[measure]());
    });
  }

  return { unpacked };
})();
