#include "apps/routes_page.h"

#include <string_view>

namespace espalier {
namespace {

// A colour a leaf; the wider the margin, the fuller. A click on a leaf shows it everywhere, and its words.
constexpr const char* page = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Routes</title>
<style>
body { font: 14px sans-serif; margin: 1.5em; color: #222 }
h1 { font-size: 1.2em } h2 { font-size: 1em; margin: 1.4em 0 .4em }
table { border-collapse: collapse } td, th { padding: 2px 5px; text-align: center; font-size: 12px }
th.block { font-weight: normal; text-align: right; white-space: nowrap }
td.leaf { cursor: pointer; border: 1px solid #fff; min-width: 2.2em }
td.chosen { outline: 2px solid #000 }
.bars { display: flex; align-items: flex-end; height: 60px; gap: 1px }
.bars div { width: 9px; cursor: pointer; min-height: 1px }
#words { position: sticky; top: 0; background: #fffbe6; padding: .5em; border: 1px solid #ddc; min-height: 1.3em }
</style></head><body>
<h1></h1>
<p>A column is a token, a row a tree; the number is the leaf it took, a full colour a wide margin, a pale one a narrow
one. Point at a cell for the margin; click a leaf to see who shares it.</p>
<div id="words">No leaf chosen.</div>
<div id="texts"></div><h2>How often each leaf was taken</h2><div id="usage"></div>
<script id="data" type="application/json">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const add = (parent, tag, text, name) => {
  const element = parent.appendChild(document.createElement(tag));
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const hue = (leaf) => (leaf * 137.508) % 360;
const colour = (leaf, margin) =>
  `hsl(${hue(leaf)} 70% ${margin === null ? 70 : 92 - 37 * Math.min(1, margin / (3 * typical))}%)`;
const all = data.texts.flatMap((t) => t.layers.flatMap((l) => l.margin.flat())).filter((m) => m !== null);
all.sort((a, b) => a - b);
const typical = all.length ? all[all.length >> 1] || 1 : 1;
const name = (block, part, tree, trees) => `block ${block}` + (part ? ` part ${part}` : "") + (trees > 1 ? ` tree ${tree}` : "");
const key = (block, part, tree, leaf) => [block, part, tree, leaf].join("-");
const words = new Map();
function choose(k, title) {
  document.querySelectorAll(".chosen").forEach((e) => e.classList.remove("chosen"));
  document.querySelectorAll(`[data-leaf="${k}"]`).forEach((e) => e.classList.add("chosen"));
  const counts = [...(words.get(k) || new Map())].sort((a, b) => b[1] - a[1]);
  document.getElementById("words").textContent =
    title + ": " + counts.map(([w, n]) => (n > 1 ? `${w} (${n})` : w)).join("  ");
}
function cell(row, l, tree, token, word) {
  const leaf = l.leaf[token][tree], margin = l.margin[token][tree], k = key(l.block, l.part, tree, leaf);
  const td = add(row, "td", leaf, "leaf");
  td.dataset.leaf = k;
  td.style.background = colour(leaf, margin);
  td.title = `${word}: leaf ${leaf}` + (margin === null ? "" : `, margin ${margin.toPrecision(3)}`);
  td.onclick = () => choose(k, `${name(l.block, l.part, tree, l.leaf[0].length)}, leaf ${leaf}`);
  if (!words.has(k)) words.set(k, new Map());
  words.get(k).set(word, (words.get(k).get(word) || 0) + 1);
}
document.querySelector("h1").textContent = document.title = data.title;
for (const t of data.texts) {
  const place = document.getElementById("texts");
  add(place, "h2", t.pair === undefined ? t.text : `${t.text} | ${t.pair}`);
  const table = add(place, "table");
  const head = add(table, "tr");
  add(head, "th");
  t.tokens.forEach((word) => add(head, "th", word));
  for (const l of t.layers)
    for (let tree = 0; tree < l.leaf[0].length; ++tree) {
      const row = add(table, "tr");
      add(row, "th", name(l.block, l.part, tree, l.leaf[0].length), "block");
      t.tokens.forEach((word, token) => cell(row, l, tree, token, word));
    }
}
for (const u of data.usage)
  u.trees.forEach((tree, number) => {
    const place = document.getElementById("usage"), title = name(u.block, u.part, number, u.trees.length);
    add(place, "p", `${title}: ${tree.distinct_leaves} of ${u.leaves} leaves, ${tree.entropy_bits.toFixed(2)} bits of ${Math.log2(u.leaves).toFixed(0)}`);
    const bars = add(place, "div", undefined, "bars"), most = Math.max(...tree.histogram, 1);
    tree.histogram.forEach((count, leaf) => {
      const bar = add(bars, "div");
      bar.style.height = `${(100 * count) / most}%`;
      bar.style.background = `hsl(${hue(leaf)} 70% 55%)`;
      bar.title = `leaf ${leaf}: ${count}`;
      bar.onclick = () => choose(key(u.block, u.part, number, leaf), `${title}, leaf ${leaf}`);
    });
  });
</script></body></html>
)html";

}  // namespace

std::string routes_page(const Json& texts, const Json& usage, const std::string& title) {
    // No text may end the element that holds it.
    std::string data;
    for (const char c : Json{{"title", title}, {"texts", texts}, {"usage", usage}}.dump()) {
        if (c == '<') {
            data += "\\u003c";
        } else {
            data += c;
        }
    }
    const std::string_view whole = page, mark = "@DATA@";
    const size_t at = whole.find(mark);
    std::string out(whole.substr(0, at));
    out += data;
    out += whole.substr(at + mark.size());
    return out;
}

}  // namespace espalier
