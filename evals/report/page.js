"use strict";
// Filters: whatever names a run is shown with that run alone; items by their kind, text and lit trends too.
const field = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll(".card")];
const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));

function filter() {
  const run = field("run").value;
  const kind = field("kind").value;
  const text = field("text").value.trim().toLowerCase();
  for (const each of document.querySelectorAll("[data-run]")) {
    each.toggleAttribute("hidden", run !== "" && each.dataset.run !== run);
  }
  let shown = 0;
  for (const card of cards) {
    const fits =
      !card.hasAttribute("hidden") &&
      (kind === "" || card.dataset.kind === kind) &&
      words.get(card).includes(text) &&
      (!field("lit").checked || "lit" in card.dataset);
    card.toggleAttribute("hidden", !fits);
    shown += fits;
  }
  for (const gallery of document.querySelectorAll(".gallery")) {
    gallery.toggleAttribute("hidden", !gallery.querySelector(".card:not([hidden])"));
    if (shown < cards.length) gallery.open = true;
  }
  field("count").textContent = `${shown} of ${cards.length} items`;
}

field("filters").addEventListener("input", filter);
field("filters").addEventListener("submit", (event) => event.preventDefault());
filter();
