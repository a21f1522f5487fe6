"use strict";
// Curves that are pointed at, lines that are hidden, runs that are filtered and sorted.
// Text of runs enters the page as text alone (textContent).
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const tip = document.querySelector(".tip");
  document.documentElement.classList.add("scripted");

  const shown = (value) => Math.abs(value) >= 1e5 || Number.isInteger(value)
    ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(5)));

  // --- curves -------------------------------------------------------------------------------------

  for (const figure of document.querySelectorAll(".curves")) {
    const buttons = [...figure.querySelectorAll(".legend button")];
    const names = new Map(buttons.map((each) => [each.dataset.line, each.textContent.trim()]));
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        for (const group of figure.querySelectorAll(`svg g[data-line="${button.dataset.line}"]`)) {
          group.classList.toggle("off", !on);
        }
      });
    }
    for (const svg of figure.querySelectorAll(".charts svg")) readable(svg, names);
  }

  function readable(svg, names) {
    const [left, top, right, bottom, x0, x1, y0, y1] = svg.dataset.box.split(" ").map(Number);
    const curves = JSON.parse(svg.dataset.curves);
    const steps = [...new Set(curves.flatMap((curve) => curve[1]))].sort((a, b) => a - b);
    const marks = document.createElementNS(SVG, "g");
    svg.append(marks);
    let at = -1;

    const across = (step) => left + (step - x0) / (x1 - x0 || 1) * (right - left);
    const down = (value) => bottom - (value - y0) / (y1 - y0 || 1) * (bottom - top);

    function mark(tag, attributes) {
      const made = document.createElementNS(SVG, tag);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      marks.append(made);
    }

    function read(index) {
      at = Math.max(0, Math.min(steps.length - 1, index));
      const step = steps[at];
      marks.replaceChildren();
      mark("path", { d: `M${across(step)} ${top}V${bottom}`, class: "rule" });
      const lines = [`step ${shown(step)}`];
      for (const [number, xs, ys, lows, highs] of curves) {
        const group = svg.querySelector(`g[data-line="${number}"]`);
        if (group.classList.contains("off")) continue;
        const nearest = closest(xs, step);
        const value = ys[nearest];
        if (value === null) continue;
        mark("circle", {
          cx: across(xs[nearest]), cy: down(value), r: 3.5,
          class: [...group.lastElementChild.classList].join(" "),
        });
        const band = lows && lows[nearest] !== null
          ? ` [${shown(lows[nearest])}, ${shown(highs[nearest])}]` : "";
        const other = xs[nearest] === step ? "" : ` (at ${shown(xs[nearest])})`;
        lines.push(`${names.get(String(number))}: ${shown(value)}${band}${other}`);
      }
      tip.textContent = lines.join("\n");
      tip.hidden = false;
      place(svg.getBoundingClientRect(), across(step));
    }

    function place(box, x) {
      const scale = box.width / svg.viewBox.baseVal.width;
      tip.style.left = "0";  // its text takes all the room that it may, wherever it stood before
      const wide = tip.offsetWidth, high = tip.offsetHeight;
      const after = box.left + x * scale + 14, before = after - wide - 28;
      const beside = after + wide < window.innerWidth ? after : before;
      tip.style.left = `${Math.max(4, Math.min(beside, window.innerWidth - wide - 4))}px`;
      // In a narrow window it would cover what is pointed at: it goes below the chart, or above.
      const outside = box.bottom + high < window.innerHeight ? box.bottom : box.top - high;
      const level = beside < 0 ? outside : box.top + top * scale;
      tip.style.top = `${Math.max(4, Math.min(level, window.innerHeight - high - 4))}px`;
    }

    function leave() {
      marks.replaceChildren();
      tip.hidden = true;
      at = -1;
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const step = x0 + (x - left) / (right - left) * (x1 - x0);
      read(closest(steps, step));
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const last = steps.length - 1;
      const jumps = {
        ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last,
        PageUp: at + Math.ceil(last / 10), PageDown: at - Math.ceil(last / 10),
      };
      if (event.key === "Escape") leave();
      else if (event.key in jumps) {
        event.preventDefault();
        read(jumps[event.key]);
      }
    });
  }

  function closest(sorted, value) {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= value) low = middle; else high = middle;
    }
    return value - sorted[low] <= sorted[high] - value ? low : high;
  }

  // --- runs ---------------------------------------------------------------------------------------

  for (const input of document.querySelectorAll(".filter")) {
    const table = input.closest("section").querySelector(".runs");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }

  for (const table of document.querySelectorAll(".runs")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const key = (row) => row.cells[column].textContent;
        const number = (text) => /^-?[\d,.]+(e[+-]?\d+)?$/.test(text) ? Number(text.replaceAll(",", "")) : NaN;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const first = number(key(a)), second = number(key(b));
          const order = Number.isNaN(first) || Number.isNaN(second)
            ? key(a).localeCompare(key(b), "en", { numeric: true }) : first - second;
          return rising ? order : -order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // --- print --------------------------------------------------------------------------------------

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });
})();
