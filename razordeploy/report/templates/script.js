"use strict";
(() => {
  const said = document.getElementById("said");

  // Copy buttons: the commands can be selected by hand where there is no script.
  const copied = async (text, code) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return document.execCommand("copy");
    }
  };
  for (const button of document.querySelectorAll(".copy")) {
    const code = button.parentElement.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copied(code.textContent, code);
      button.textContent = done ? "Copied" : "Press Ctrl+C";
      said.textContent = button.textContent;
      setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 1800);
    });
  }

  // What a cell stands for: read from its row in the table of all operations.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  let here = null;
  const hide = () => {
    here?.classList.remove("here");
    here = null;
    tip.hidden = true;
  };
  const show = (cell) => {
    if (cell === here) return;
    hide();
    const row = document.getElementById(cell.hash.slice(1));
    if (!row) return;
    const [number, module, op, node] = Array.from(row.cells, (c) => c.textContent.trim());
    const fate = row.cells[4 + Number(cell.closest(".graph").dataset.place)];
    const parts = [["b", `${op}${module ? ` in ${module}` : ""}`], ["span", fate.textContent.trim()], ["span", `node ${node}, no. ${number}`]];
    tip.replaceChildren(...parts.map(([tag, text]) => Object.assign(document.createElement(tag), { textContent: text })));
    tip.hidden = false;
    here = cell;
    cell.classList.add("here");
    const box = cell.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2), document.documentElement.clientWidth - size.width - 8);
    const above = box.top - size.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const cell = event.target.closest?.(".c[href]");
    if (cell) show(cell); else hide();
  });
  document.addEventListener("click", (event) => {
    const cell = event.target.closest?.(".c[href]");
    if (!cell) return hide();
    event.preventDefault();
    show(cell);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", hide, { passive: true });
})();
