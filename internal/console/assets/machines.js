// The pages of machines: the time where a machine stands, the zones to choose
// from, and where the keyboard's focus goes.
"use strict";
(() => {
  // A clock where the machine stands.
  const clocks = () => document.querySelectorAll("[data-clock]").forEach((el) => {
    try {
      el.textContent = new Intl.DateTimeFormat(document.documentElement.lang, { timeZone: el.dataset.clock, hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format();
    } catch {
      el.textContent = ""; // a zone that this browser does not know
    }
  });
  clocks();
  setInterval(clocks, 5000);

  const zones = document.querySelector("[data-zones]");
  zones?.replaceChildren(...(Intl.supportedValuesOf?.("timeZone") ?? []).map((name) => new Option("", name)));

  // A new machine stands where its operator is, as far as anybody knows.
  const zone = document.querySelector("form[data-new] [name=zone]");
  if (zone) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || zone.value;

  // What was made is forgotten by the dialog; the slot that opened it has the
  // focus again, also if it was drawn anew meanwhile.
  const make = document.getElementById("make");
  const body = document.getElementById("make-body");
  let opener = "";
  document.addEventListener("click", (e) => { opener = e.target.closest?.("[data-open=make]")?.id ?? opener; }, true);
  make?.addEventListener("close", () => {
    body.replaceChildren();
    document.getElementById(opener)?.focus();
  });

  // What had the focus may be gone from the part that was put in its place.
  const now = document.getElementById("now");
  let within = false;
  now?.addEventListener("htmx:beforeSwap", () => { within = within || now.contains(document.activeElement); });
  now?.addEventListener("htmx:sseBeforeMessage", () => { within = now.contains(document.activeElement); });
  now?.addEventListener("htmx:afterSwap", () => {
    if (within && !now.contains(document.activeElement) && !document.querySelector("dialog[open]")) document.getElementById("live-title")?.focus({ preventScroll: true });
    within = false;
  });
})();
