"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  const buttons = [...document.querySelectorAll("button[data-label]")];
  const search = document.querySelector("#search");
  const shown = document.querySelector("#shown");
  const texts = new Map();
  let label = "";
  const textOf = (card) => {
    if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
    return texts.get(card);
  };
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const card of cards) {
      const fits = !label || card.dataset.labels.split(" ").includes(label);
      card.hidden = !fits || !words.every((word) => textOf(card).includes(word));
      count += card.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${cards.length} shown`;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      label = button.dataset.label;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      update();
    });
  }
  search?.addEventListener("input", update);
  document.querySelector("#open")?.addEventListener("click", (event) => {
    const visible = cards.filter((card) => !card.hidden);
    const open = visible.some((card) => !card.open);
    for (const card of visible) card.open = open;
    event.target.textContent = open ? "close all" : "open all";
  });
})();
