// What every page of the console does in the browser: times in the reader's zone,
// copying, confirmations, keys, the palette, ticked rows, countdowns. Everything
// but those works without it.
"use strict";
(() => {
  const root = document.documentElement;
  const lang = root.lang;
  const texts = () => document.getElementById("texts").dataset;
  const cookie = (name, value) => {
    document.cookie = `${name}=${value};path=/;max-age=31536000;samesite=lax`;
  };

  // The server reads dates that are typed, and draws days, in this zone. It takes the
  // name as it stands: no zone's has a letter that a cookie may not hold.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  cookie("scrip_zone", zone);

  // A page that has shown a secret is not to be asked for again by a reload.
  const address = document.querySelector("[data-address]")?.dataset.address;
  if (address) history.replaceState(null, "", address);

  // Times.
  // One way to write them in every language, which nobody can take for another day.
  const two = (n) => String(n).padStart(2, "0");
  const day = (t) => `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
  const at = (t) => `${day(t)} ${two(t.getHours())}:${two(t.getMinutes())}`;
  const full = new Intl.DateTimeFormat(lang, { dateStyle: "full", timeStyle: "long" });
  const relative = new Intl.RelativeTimeFormat(lang, { numeric: "auto", style: "short" });
  const steps = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [86400 * 30, "day", 86400], [86400 * 365, "month", 86400 * 30], [Infinity, "year", 86400 * 365]];
  const since = (then) => {
    const seconds = (then - Date.now()) / 1000;
    const [, unit, size] = steps.find(([below]) => Math.abs(seconds) < below);
    return relative.format(Math.trunc(seconds / size), unit);
  };
  const showTime = (el) => {
    const then = new Date(el.dateTime);
    if (isNaN(then)) return;
    el.textContent = "ago" in el.dataset ? since(then) : ("day" in el.dataset ? day : at)(then);
    el.title = full.format(then);
  };

  // An amount as people type it, in the forms that the server reads; null for what is
  // none, or less than none.
  globalThis.typedAmount = (text) => {
    const digits = text.trim().replace(/[０-９]/g, (d) => String.fromCharCode(d.charCodeAt(0) - 0xfee0))
      .replace(/[ \u00a0\u202f_，’']/g, ",").replace(/^[+＋]/, "");
    const n = /^(\d+|\d{1,3}(,\d{3})+)$/.test(digits) ? BigInt(digits.replaceAll(",", "")) : null;
    return n !== null && n < 2n ** 63n ? n : null;
  };

  // Countdowns: data-until is when, data-from since when; a ring empties, a text
  // counts.
  const left = (el) => {
    const ms = Math.max(0, el.dataset.until - Date.now());
    const ring = el.querySelector("[data-ring]");
    if (ring) ring.setAttribute("stroke-dashoffset", String(100 - 100 * ms / Math.max(1, el.dataset.until - el.dataset.from)));
    const text = el.querySelector("[data-left]");
    if (!text) return;
    const s = Math.ceil(ms / 1000);
    text.textContent = s >= 86400 ? relativeDays(s) : s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
  };
  const days = new Intl.NumberFormat(lang, { style: "unit", unit: "day", unitDisplay: "long" });
  const relativeDays = (s) => days.format(Math.floor(s / 86400));

  const dress = (scope) => {
    scope.querySelectorAll("time[datetime]").forEach(showTime);
    scope.querySelectorAll("[data-until]").forEach(left);
    scope.querySelectorAll("kbd[data-mod]").forEach((k) => { k.textContent = (/Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl ") + k.dataset.mod; });
    scope.querySelectorAll("table[data-select]").forEach(ticked);
  };
  setInterval(() => document.querySelectorAll("[data-until]").forEach(left), 1000);
  setInterval(() => document.querySelectorAll("time[data-ago]").forEach(showTime), 20000);

  // Theme: by the system, or as chosen.
  document.querySelector("[data-theme-switch]")?.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    cookie("scrip_theme", root.dataset.theme);
    document.dispatchEvent(new Event("scrip:theme"));
  });

  // Copying, also where the page has no clipboard: over plain HTTP.
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "sr";
      (document.querySelector("dialog[open]") || document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  const announce = (text) => {
    const live = document.createElement("p");
    live.className = "sr";
    live.setAttribute("role", "status");
    document.body.append(live);
    live.textContent = text;
    setTimeout(() => live.remove(), 3000);
  };

  document.addEventListener("click", async (e) => {
    const from = e.target.closest?.("[data-copy], [data-copy-from], [data-open], [data-close]");
    document.querySelectorAll("details.menu[open]").forEach((d) => { if (!d.contains(e.target)) d.open = false; });
    if (!from) return;
    if (from.dataset.open) open(from.dataset.open);
    if ("close" in from.dataset) from.closest("dialog")?.close();
    if ("copy" in from.dataset || from.dataset.copyFrom) {
      const source = from.dataset.copyFrom && document.querySelector(from.dataset.copyFrom);
      await copy(source ? source.value ?? source.innerText : from.dataset.copy);
      from.classList.add("copied");
      setTimeout(() => from.classList.remove("copied"), 1500);
      announce(texts().copied);
    }
  });

  const open = (id) => {
    const dialog = document.getElementById(id);
    if (!dialog || dialog.open) return;
    dialog.showModal();
    dialog.querySelector("[autofocus], input:not([type=hidden])")?.focus();
  };
  document.addEventListener("click", (e) => { if (e.target instanceof HTMLDialogElement && e.target.matches(".palette, .keys")) e.target.close(); });

  // Confirmations: data-ask on a form, or on the button that sends it, is the
  // question (data-ask-one when one row is ticked); data-ask-yes the verb,
  // data-ask-text what to know before.
  const ask = document.getElementById("ask");
  let asked = null;
  document.addEventListener("submit", (e) => {
    const by = e.submitter?.dataset.ask ? e.submitter : e.target;
    if (!by.dataset.ask || asked === e.target) { asked = null; return; }
    e.preventDefault();
    e.stopImmediatePropagation();
    const form = e.target, submitter = e.submitter;
    const count = document.querySelector("[data-every]:checked")?.dataset.every ?? document.querySelectorAll("table[data-select] tbody input:checked").length;
    document.getElementById("ask-title").textContent = (count === 1 && by.dataset.askOne || by.dataset.ask).replace("{n}", grouped(count));
    document.getElementById("ask-text").textContent = by.dataset.askText || "";
    const yes = ask.querySelector("[value=yes]");
    yes.textContent = by.dataset.askYes;
    yes.classList.toggle("bad", "askBad" in by.dataset);
    ask.returnValue = "";
    ask.showModal();
    ask.addEventListener("close", () => {
      if (ask.returnValue !== "yes") return;
      // The part with the form may have been drawn anew meanwhile.
      const now = form.isConnected ? form : [...document.forms].find((f) => f.dataset.ask && f.getAttribute("action") === form.getAttribute("action"));
      if (!now) return;
      asked = now;
      now.requestSubmit(now === form && submitter?.form ? submitter : undefined);
    }, { once: true });
  }, true);

  // Pressed twice, a form is sent once: the second answer would hide what the first
  // shows a single time.
  let sent = { form: null, by: null, at: 0 };
  document.addEventListener("submit", (e) => {
    if (e.defaultPrevented || e.target.method !== "post") return;
    if (sent.form === e.target && sent.by === e.submitter && e.timeStamp - sent.at < 2000) { e.preventDefault(); return; }
    sent = { form: e.target, by: e.submitter, at: e.timeStamp };
  });

  // While an input method composes, nothing is searched for.
  const searches = (el) => el.closest?.("[hx-get]");
  document.addEventListener("input", (e) => { if (e.isComposing && searches(e.target)) e.stopPropagation(); }, true);
  document.addEventListener("compositionend", (e) => { if (searches(e.target)) e.target.dispatchEvent(new Event("input", { bubbles: true })); });

  // Ticked rows: a table with data-select has a form, of that id, which is shown
  // while any is ticked. In it data-every stands for so many rows of all pages; to
  // tick or not to tick one of them alone takes that back.
  const grouped = (n) => Number(n).toLocaleString("en");
  const ticked = (table) => {
    const boxes = [...table.querySelectorAll("tbody input[type=checkbox]")];
    const n = boxes.filter((b) => b.checked).length;
    const bar = document.getElementById(table.dataset.select);
    if (bar) {
      bar.hidden = n === 0;
      const every = bar.querySelector("[data-every]:checked");
      bar.querySelectorAll("[data-count]").forEach((c) => { c.textContent = grouped(every ? every.dataset.every : n); });
    }
    const all = table.querySelector("thead input[type=checkbox]");
    if (all) { all.checked = n > 0 && n === boxes.length; all.indeterminate = n > 0 && n < boxes.length; }
  };
  document.addEventListener("change", (e) => {
    const every = e.target.matches?.("[data-every]");
    const table = every ? e.target.form.querySelector("table[data-select]") : e.target.closest?.("table[data-select]");
    if (!table || e.target.type !== "checkbox") return;
    if (every ? e.target.checked : e.target.closest("thead")) table.querySelectorAll("tbody input[type=checkbox]").forEach((b) => { b.checked = e.target.checked; });
    if (!every) table.closest("form").querySelectorAll("[data-every]").forEach((b) => { b.checked = false; });
    ticked(table);
  });

  // A field that may be large, in which Enter sends all the same.
  document.addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || e.isComposing || !e.target.matches?.("textarea[data-enter]")) return;
    e.preventDefault();
    e.target.form.requestSubmit();
  });

  // The palette: arrows choose, Enter goes; once what is typed has been looked for.
  const palette = document.getElementById("palette");
  const wanted = palette?.querySelector("input");
  let asking = "", shown = null, go = false;
  const choices = () => [...palette.querySelectorAll("#found a")];
  const chosen = () => choices().find((a) => a.getAttribute("aria-selected") === "true") ?? choices()[0];
  palette?.addEventListener("htmx:beforeRequest", () => { asking = wanted.value; });
  palette?.addEventListener("htmx:afterSwap", () => {
    shown = asking;
    if (go && shown === wanted.value) chosen()?.click();
  });
  palette?.addEventListener("keydown", (e) => {
    if (e.isComposing) return;
    go = false;
    const links = choices();
    const now = links.findIndex((a) => a.getAttribute("aria-selected") === "true");
    const to = (i) => links.forEach((a, j) => { a.setAttribute("aria-selected", String(j === i)); if (j === i) a.scrollIntoView({ block: "nearest" }); });
    if (e.key === "ArrowDown") { to(Math.min(now + 1, links.length - 1)); e.preventDefault(); }
    if (e.key === "ArrowUp") { to(Math.max(now - 1, 0)); e.preventDefault(); }
    if (e.key !== "Enter") return;
    e.preventDefault();
    if (shown === wanted.value) chosen()?.click(); else go = true;
  });

  // Keys, outside of fields.
  let went = 0;
  document.addEventListener("keydown", (e) => {
    if ((e.metaKey || e.ctrlKey) && e.key.toLowerCase() === "k" && palette) { e.preventDefault(); open("palette"); return; }
    if (e.metaKey || e.ctrlKey || e.altKey || e.target.matches?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
    if (document.querySelector("[data-own-keys]")) return;
    if (Date.now() - went < 1000) {
      const to = { o: "/", c: "/codes", m: "/machines", u: "/users", l: "/ledger", s: "/settings" }[e.key];
      went = 0;
      if (to && palette) { location.href = to; return; }
    }
    if (e.key === "g") went = Date.now();
    if (e.key === "?") open("keys");
    if (e.key === "n") { const main = document.querySelector("[data-main]"); if (main) { e.preventDefault(); main.click(); } }
    if (e.key === "/") { const search = document.querySelector("[data-search]"); if (search) { e.preventDefault(); search.focus(); } }
  });

  // What is live is so only while it can be seen: over plain HTTP a browser has six
  // connections to a server for all its tabs, and each stream holds one.
  class Stream {
    #source = null;
    #listeners = [];
    #look = () => (document.hidden ? this.#leave() : this.#join());
    constructor(url) {
      this.url = url;
      document.addEventListener("visibilitychange", this.#look);
      this.#look();
    }
    #join() {
      if (this.#source) return;
      const source = this.#source = new EventSource(this.url);
      source.onopen = (e) => this.onopen?.(e);
      source.onerror = (e) => {
        this.readyState = source.readyState;
        if (source.readyState === EventSource.CLOSED) this.close(); // htmx makes another
        this.onerror?.(e);
      };
      this.#listeners.forEach((l) => source.addEventListener(...l));
    }
    #leave() {
      this.#source?.close();
      this.#source = null;
    }
    addEventListener(...listener) {
      this.#listeners.push(listener);
      this.#source?.addEventListener(...listener);
    }
    removeEventListener(name, does) {
      this.#listeners = this.#listeners.filter((l) => l[0] !== name || l[1] !== does);
      this.#source?.removeEventListener(name, does);
    }
    close() {
      document.removeEventListener("visibilitychange", this.#look);
      this.#leave();
    }
  }
  htmx.createEventSource = (url) => new Stream(url);

  // htmx.
  document.addEventListener("htmx:load", (e) => dress(e.target));
  document.addEventListener("htmx:afterSwap", (e) => dress(e.target));
  document.addEventListener("htmx:sendError", () => {
    const p = document.createElement("p");
    p.className = "notice bad";
    p.textContent = texts().offline;
    document.getElementById("problems").replaceChildren(p);
  });
  document.addEventListener("htmx:afterOnLoad", (e) => { if (e.detail.successful) document.getElementById("problems").replaceChildren(); });
  document.addEventListener("DOMContentLoaded", () => dress(document));
  if (document.readyState !== "loading") dress(document);
})();
