"use strict";
// Everything the page says stands in its HTML; this adds sorting, filters, copying, and figures that answer.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const say = (text) => { document.getElementById("said").textContent = text; };

  const copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // pages from plain http have no clipboard
      const area = document.body.appendChild(make("textarea", { value: text }));
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(`${what} copied`);
  };

  const main = (cell) => (cell.firstChild ? cell.firstChild.textContent.trim() : "");
  const key = (cell) => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = main(cell);
    return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
  };
  const order = (one, other) => {
    if (one === "" || other === "") return (one === "") - (other === ""); // empty cells stay below
    return typeof one === "number" && typeof other === "number"
      ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
  };

  const sortable = (table) => {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
        rows.sort(([a], [b]) => (a === "" || b === "" ? order(a, b) : down ? order(b, a) : order(a, b)));
        body.append(...rows.map(([, row]) => row));
        say(`sorted by ${button.textContent}, ${down ? "descending" : "ascending"}`);
      });
    });
  };

  const tools = (table) => {
    const bar = make("p", { className: "tools" });
    const rows = () => [...table.tBodies[0].rows];
    if (rows().length > 5) {
      const field = make("input", { type: "search", placeholder: "filter rows" });
      field.setAttribute("aria-label", `filter rows of ${table.caption.textContent}`);
      field.addEventListener("input", () => {
        const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
        rows().forEach((row) => {
          const text = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
        });
        say(`${rows().filter((row) => !row.hidden).length} of ${rows().length} rows`);
      });
      bar.append(field);
    }
    const button = make("button", { type: "button", textContent: "copy" });
    button.setAttribute("aria-label", `copy ${table.caption.textContent}`);
    button.addEventListener("click", () => {
      const shown = [table.tHead.rows[0], ...rows().filter((row) => !row.hidden)];
      const line = (row) => [...row.cells].map((cell) => main(cell).replace(/\s+/g, " ")).join("\t");
      copy(shown.map(line).join("\n"), "table");
    });
    bar.append(button);
    table.parentElement.before(bar);
  };

  const tip = document.body.appendChild(make("div", { className: "tip", hidden: true }));
  const light = (digest, on) => all(`[data-digest="${digest}"]`).forEach((item) => item.classList.toggle("lit", on));
  const answering = (item) => {
    const title = item.querySelector("title");
    if (title) title.remove(); // the browser's own tip would cover ours
    const enter = () => {
      light(item.dataset.digest, true);
      if (!item.matches(".point")) return;
      tip.textContent = item.getAttribute("aria-label");
      tip.hidden = false;
      const box = item.getBoundingClientRect();
      const left = Math.min(box.right + 10, document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left) + scrollX}px`;
      tip.style.top = `${Math.max(8, box.top - tip.offsetHeight - 8) + scrollY}px`;
    };
    const leave = () => { light(item.dataset.digest, false); tip.hidden = true; };
    item.addEventListener("pointerenter", enter);
    item.addEventListener("pointerleave", leave);
    item.addEventListener("focusin", enter);
    item.addEventListener("focusout", leave);
  };

  const arrive = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.hidden) target.hidden = false;
    if (target.matches("details")) {
      target.open = true;
      target.querySelector("summary").focus({ preventScroll: true });
    }
    target.scrollIntoView();
  };

  const contents = () => {
    const links = new Map(all("nav li a").map((link) => [link.hash.slice(1), link]));
    const heads = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
    if (heads.length === 0) return;
    const mark = () => {
      const passed = heads.filter((head) => head.getBoundingClientRect().top < 120);
      const current = (passed.at(-1) || heads[0]).id;
      links.forEach((link, id) => {
        if (id === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
    if (matchMedia("(max-width: 75rem)").matches) document.querySelector("nav details").open = false;
  };

  // While a run goes on: load again when it has written, with what was open and what was in view where it was.
  const top = (item) => item.getBoundingClientRect().top;
  const follow = (stamp) => {
    history.scrollRestoration = "manual";
    const kept = JSON.parse(sessionStorage.getItem("kept") || "null");
    sessionStorage.removeItem("kept");
    addEventListener("load", () => { // after the browser has gone where the address leads
      if (!kept) return;
      kept.open.map((id) => document.getElementById(id)).filter(Boolean).forEach((item) => { item.open = true; });
      const seen = document.getElementById(kept.seen);
      scrollBy({ top: seen ? top(seen) - kept.top : kept.y, behavior: "instant" });
    });
    addEventListener("pagehide", () => {
      const open = all("details[open][id]").map((item) => item.id);
      const seen = all("h2[id], details[open][id]").findLast((item) => top(item) < innerHeight / 2);
      sessionStorage.setItem("kept", JSON.stringify({ open, seen: seen?.id, top: seen && top(seen), y: scrollY }));
    });
    setInterval(async () => {
      const answer = await fetch("stamp").catch(() => null);
      document.getElementById("gone").hidden = Boolean(answer);
      const found = answer ? await answer.text() : stamp;
      const busy = all("input").some((field) => field.value) || !getSelection().isCollapsed;
      if (found !== stamp && !busy) location.reload();
    }, 2000);
    return Boolean(kept);
  };

  all("table").forEach((table) => { sortable(table); tools(table); });
  all("pre").forEach((block) => {
    const button = make("button", { type: "button", textContent: "copy", className: "copy" });
    button.addEventListener("click", () => copy(block.textContent, "command"));
    block.before(button);
  });
  all("a.point, tr[data-digest]").forEach(answering);
  contents();
  addEventListener("hashchange", arrive);
  addEventListener("beforeprint", () => all("details").forEach((item) => { item.open = true; }));
  const { stamp } = document.documentElement.dataset;
  if (!stamp || !follow(stamp)) arrive();
})();
