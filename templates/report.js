"use strict";
(() => {
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const form = document.getElementById("filters");
  const controls = all(".control");
  const texts = new Map();
  const text = (control) => {
    if (!texts.has(control)) texts.set(control, control.textContent.toLowerCase().replace(/\s+/g, " "));
    return texts.get(control);
  };

  const filter = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const control of controls) {
      const has = control.dataset;
      const kept =
        (!wanted.status || has.status === wanted.status) &&
        (!wanted.section || has.section === wanted.section) &&
        (!wanted.level || has.level === wanted.level) &&
        (!wanted.kind || has.classes.split(" ").includes(wanted.kind)) &&
        (!wanted.host || has.hosts.split(" ").includes(wanted.host)) &&
        words.every((word) => text(control).includes(word));
      control.hidden = !kept;
      shown += kept;
    }
    for (const group of all(".controls-section")) group.hidden = !all(".control", group).some((control) => !control.hidden);
    document.getElementById("shown").value = `${shown} of ${controls.length} shown`;
    document.getElementById("nothing").hidden = shown > 0;
  };
  for (const kind of ["input", "change"]) form.addEventListener(kind, filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));

  // A link with a filter sets it, and only it, before it is followed.
  for (const link of all("[data-set]")) {
    link.addEventListener("click", () => {
      form.reset();
      const [name, value] = link.dataset.set.split("=");
      form.elements[name].value = value;
      filter();
    });
  }

  // What a link names is opened and shown, whatever folds or filters hide it.
  const follow = () => {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    if (target.closest("[hidden]")) { form.reset(); filter(); }
    for (let at = target; at; at = at.parentElement) if (at instanceof HTMLDetailsElement) at.open = true;
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) follow();
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      form.elements.q.focus();
      document.getElementById("controls").scrollIntoView();
    } else if (event.key === "Escape" && event.target === form.elements.q) {
      form.elements.q.value = "";
      filter();
      form.elements.q.blur();
    }
  });

  for (const button of all("[data-fold]")) {
    button.addEventListener("click", () => {
      for (const control of controls) if (!control.hidden) control.open = button.dataset.fold === "open";
    });
  }

  // Paper has no folds.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const each of closed) each.open = true;
  });
  window.addEventListener("afterprint", () => { for (const each of closed) each.open = false; });

  // A way in the picture and its rows in the table light up together.
  const picture = document.querySelector(".picture");
  const light = (number) => {
    if (picture) picture.classList.toggle("focus", number !== null);
    for (const each of all("[data-way]")) each.classList.toggle("lit", number !== null && each.dataset.way === number);
  };
  for (const each of all("[data-way]")) {
    each.addEventListener("pointerenter", () => light(each.dataset.way));
    each.addEventListener("pointerleave", () => light(null));
    each.addEventListener("focusin", () => light(each.dataset.way));
    each.addEventListener("focusout", () => light(null));
  }

  filter();
  follow();
})();
