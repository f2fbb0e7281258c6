// The change of a balance: what it will be, before it is done.
"use strict";
(() => {
  const form = document.querySelector("form[data-balance]");
  if (!form) return;
  const had = BigInt(form.dataset.balance);
  const after = form.querySelector("[data-after]"), short = form.querySelector("[data-short]");
  const show = () => {
    const digits = form.amount.value.normalize("NFKC").replace(/[\s,_]/g, "");
    const known = /^\d{1,19}$/.test(digits);
    const sum = known ? (form.way.value === "less" ? had - BigInt(digits) : had + BigInt(digits)) : 0n;
    after.hidden = !known || sum < 0n;
    short.hidden = !known || sum >= 0n;
    after.querySelector("b").textContent = sum.toLocaleString("en");
  };
  form.addEventListener("input", show);
  show();
})();
