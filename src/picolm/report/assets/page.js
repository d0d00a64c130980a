(() => {
  "use strict";
  const settings = JSON.parse(document.getElementById("settings").textContent);
  const tip = document.getElementById("tip");
  const drawn = new Map();
  let focusLayer = "";

  const idle = window.requestIdleCallback ? (work) => window.requestIdleCallback(work, { timeout: 500 }) : (work) => setTimeout(work, 30);

  const payloads = new WeakMap();
  function payloadOf(card) {
    if (!payloads.has(card)) payloads.set(card, JSON.parse(card.querySelector("script").textContent));
    return payloads.get(card);
  }

  const columns = JSON.parse(document.getElementById("columns").textContent);
  const spread = new Map();
  function columnAt(place) {
    if (!spread.has(place)) {
      const column = columns[place];
      spread.set(place, Array.isArray(column) ? column : column.at.map((index) => column.of[index]));
    }
    return spread.get(place);
  }

  function unpack(table, wanted) {
    const names = Object.keys(table.columns);
    const values = names.map((name) => columnAt(table.columns[name]));
    const layers = table.columns.layer === undefined ? null : columnAt(table.columns.layer);
    const rows = [];
    for (let row = 0; row < table.rows; row += 1) {
      if (wanted !== undefined && String(layers[row]) !== wanted) continue;
      const record = {};
      names.forEach((name, index) => { record[name] = values[index][row]; });
      rows.push(record);
    }
    return rows;
  }

  // Rows of single heads are many: a chart holds only those of the layer that is set apart.
  const ofHeads = (table) => table.columns.head !== undefined && table.columns.layer !== undefined;

  function legendColumns(spec, room) {
    const names = (spec.layer || [spec]).flatMap((part) => part.encoding?.color?.scale?.domain || []);
    const longest = Math.max(4, ...names.filter((name) => typeof name === "string").map((name) => name.length));
    return Math.max(1, Math.floor(room / (longest * 7 + 40)));
  }

  function specOf(card) {
    const spec = structuredClone(payloadOf(card).spec);
    for (const [name, table] of Object.entries(spec.datasets)) spec.datasets[name] = unpack(table, ofHeads(table) ? focusLayer : undefined);
    spec.config = { legend: { columns: legendColumns(spec, card.querySelector(".chart").clientWidth) } };
    return spec;
  }

  function tableOf(card) {
    return Object.values(payloadOf(card).spec.datasets).flatMap((table) => unpack(table));
  }

  function showTip(handler, event, item, value) {
    if (value === null || value === undefined || value === "") { tip.hidden = true; return; }
    const entries = typeof value === "object" ? Object.entries(value) : [["", String(value)]];
    tip.replaceChildren(...entries.map(([name, text]) => {
      const line = document.createElement("div");
      const label = document.createElement("span");
      const number = document.createElement("b");
      label.textContent = name;
      number.textContent = text;
      line.append(label, number);
      return line;
    }));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > window.innerWidth ? event.clientX - box.width - 14 : event.clientX + 14;
    const top = Math.min(event.clientY + 14, window.innerHeight - box.height - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  }

  function applyFocus(card, view) {
    const { spec } = payloadOf(card);
    if (!(spec.params || []).some((param) => param.name === "focus_layer")) return;
    for (const [name, table] of Object.entries(spec.datasets)) if (ofHeads(table)) view.data(name, unpack(table, focusLayer));
    view.signal("focus_layer", focusLayer).runAsync();
  }

  const onScreen = (card) => {
    const box = card.getBoundingClientRect();
    return box.height > 0 && box.top < window.innerHeight && box.bottom > 0;
  };
  // What the reader sees follows at once, the rest when there is time.
  const behind = new Set();
  function catchUp() {
    const [card] = behind;
    if (card === undefined) return;
    behind.delete(card);
    applyFocus(card, drawn.get(card).view);
    idle(catchUp);
  }

  function setFocus(layer) {
    focusLayer = layer;
    for (const button of document.querySelectorAll("[data-layer]")) {
      button.setAttribute("aria-pressed", String(button.dataset.layer === layer));
    }
    behind.clear();
    for (const [card, result] of drawn) {
      if (onScreen(card)) applyFocus(card, result.view);
      else behind.add(card);
    }
    idle(catchUp);
  }

  async function draw(card) {
    if (drawn.has(card) || card.dataset.state) return;
    card.dataset.state = "drawing";
    const target = card.querySelector(".chart");
    try {
      // Errors only: Vega warns of every table that is empty until the reader sets a layer apart.
      const logLevel = 1;
      const result = await window.vegaEmbed(target, specOf(card), {
        mode: "vega-lite", ast: true, actions: false, renderer: "svg", defaultStyle: false, config: settings.config, tooltip: showTip, logLevel,
      });
      drawn.set(card, result);
      card.dataset.state = "drawn";
      applyFocus(card, result.view);
      result.view.addEventListener("click", (event, item) => {
        const datum = item && item.datum;
        if (datum && datum.layer !== undefined) setFocus(String(datum.layer) === focusLayer ? "" : String(datum.layer));
      });
    } catch (error) {
      card.dataset.state = "failed";
      target.textContent = `This chart could not be drawn: ${error.message}`;
      throw error;
    }
  }

  const visible = (card) => card.offsetParent !== null;
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "250px" });
  const cards = [...document.querySelectorAll("[data-figure]")];
  for (const card of cards) {
    card.querySelector(".chart").style.minHeight = `${card.dataset.height}px`;
    observer.observe(card);
  }

  function drawRest() {
    const next = cards.find((card) => visible(card) && !card.dataset.state);
    if (!next) { document.documentElement.dataset.ready = "true"; return; }
    draw(next).finally(() => idle(drawRest));
  }
  idle(drawRest);

  for (const choice of document.querySelectorAll("[data-choice]")) {
    choice.querySelector("select").addEventListener("change", (event) => {
      for (const option of choice.querySelectorAll("[data-option]")) option.hidden = option.dataset.option !== event.target.value;
      idle(drawRest);
    });
  }

  for (const box of document.querySelectorAll("[data-passages]")) {
    const frames = [...box.querySelectorAll("[data-frame]")];
    box.querySelector("input").addEventListener("input", (event) => {
      const chosen = frames[Number(event.target.value)];
      for (const frame of frames) frame.hidden = frame !== chosen;
      event.target.setAttribute("aria-valuetext", chosen.dataset.frame);
      box.querySelector("output").textContent = chosen.dataset.frame;
    });
  }

  const firstCharacters = /^[=+\-@\t\r]/;
  function cell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = firstCharacters.test(String(value)) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  function csv(rows) {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
    return [names.map(cell).join(","), ...rows.map((row) => names.map((name) => cell(row[name])).join(","))].join("\r\n") + "\r\n";
  }
  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function literalColours(svg) {
    const computed = getComputedStyle(document.documentElement);
    return svg.replace(/var\((--[a-z0-9-]+)\)/g, (whole, name) => computed.getPropertyValue(name).trim() || whole);
  }
  async function download(card, kind) {
    const { name } = payloadOf(card);
    const file = name.replace(/[^A-Za-z0-9._-]+/g, "_");
    if (kind === "svg") {
      await draw(card);
      save(`${file}.svg`, "image/svg+xml", literalColours(await drawn.get(card).view.toSVG()));
      return;
    }
    const rows = tableOf(card);
    if (kind === "csv") save(`${file}.csv`, "text/csv", csv(rows));
    else save(`${file}.json`, "application/json", JSON.stringify(rows, null, 1));
  }

  document.addEventListener("click", (event) => {
    const layer = event.target.closest("[data-layer]");
    if (layer) setFocus(layer.dataset.layer === focusLayer ? "" : layer.dataset.layer);
    const button = event.target.closest("[data-download]");
    if (button) {
      download(button.closest("[data-figure]"), button.dataset.download);
      button.closest("details").open = false;
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    tip.hidden = true;
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
    if (focusLayer !== "") setFocus("");
  });
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // A live page reads itself again and comes back as it was left.
  const selects = [...document.querySelectorAll("[data-choice] select")];
  const sliders = [...document.querySelectorAll("[data-passages] input")];
  function keepPlace() {
    const theme = document.documentElement.dataset.theme || "";
    const open = [...document.querySelectorAll("details.table")].map((table) => table.open);
    sessionStorage.setItem("place", JSON.stringify({ top: scrollY, focusLayer, theme, open, chosen: selects.map((select) => select.value),
      moments: sliders.map((slider) => (slider.value === slider.max ? null : slider.value)) }));
  }
  function returnToPlace() {
    const kept = sessionStorage.getItem("place");
    sessionStorage.removeItem("place");
    if (!kept) return;
    const place = JSON.parse(kept);
    if (place.theme) document.documentElement.dataset.theme = place.theme;
    document.querySelectorAll("details.table").forEach((table, index) => { table.open = Boolean(place.open[index]); });
    selects.forEach((select, index) => {
      if (!place.chosen[index] || !select.querySelector(`option[value="${CSS.escape(place.chosen[index])}"]`)) return;
      select.value = place.chosen[index];
      select.dispatchEvent(new Event("change"));
    });
    sliders.forEach((slider, index) => {
      if (place.moments[index] === null || place.moments[index] === undefined) return;
      slider.value = place.moments[index];
      slider.dispatchEvent(new Event("input"));
    });
    setFocus(place.focusLayer);
    window.scrollTo({ top: place.top, behavior: "instant" });
  }
  if (settings.reloadSeconds) {
    returnToPlace();
    setInterval(() => {
      if (document.hidden || document.querySelector("details.menu[open]")) return;
      keepPlace();
      location.reload();
    }, settings.reloadSeconds * 1000);
  }

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const spy = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section")) spy.observe(section);
})();
