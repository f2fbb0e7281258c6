// The change of a balance: what it will be, before it is done.
"use strict";
(() => {
  const form = document.querySelector("form[data-balance]");
  if (!form) return;
  const had = BigInt(form.dataset.balance);
  const after = form.querySelector("[data-after]"), short = form.querySelector("[data-short]");
  const show = () => {
    const n = typedAmount(form.amount.value);
    const sum = form.way.value === "less" ? had - (n ?? 0n) : had + (n ?? 0n);
    after.hidden = n === null || sum < 0n;
    short.hidden = n === null || sum >= 0n;
    after.querySelector("b").textContent = sum.toLocaleString("en");
  };
  form.addEventListener("input", show);
  show();
})();
