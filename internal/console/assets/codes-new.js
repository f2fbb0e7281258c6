// The preview of a batch: what it will be worth, before it is made.
"use strict";
(() => {
  const form = document.getElementById("new-codes");
  const preview = form.querySelector("[data-preview]");
  const grouped = (n) => (n === null ? "–" : n.toLocaleString("en"));
  const show = () => {
    const count = typedAmount(form.elements.count.value), quota = typedAmount(form.elements.quota.value);
    const put = (name, text) => { preview.querySelector(`[data-${name}]`).textContent = text; };
    preview.hidden = false;
    put("name", form.elements.name.value.trim() || "–");
    put("count", grouped(count));
    put("quota", grouped(quota));
    put("worth", count === null || quota === null ? "–" : grouped(count * quota));
    const at = form.elements.expires.value;
    put("expires", at ? new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "full", timeStyle: "short" }).format(new Date(at)) : preview.querySelector("[data-expires]").dataset.never);
  };
  form.addEventListener("input", show);
  show();
})();
