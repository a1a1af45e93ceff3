// Keeps the page as the gateway is. The server writes all of it; here the differences to what is shown are carried over,
// node by node, so that focus, selection and what somebody opened stay.
"use strict";
(() => {
  const PAUSE = 2000, PATIENCE = 5000; // milliseconds between two readings, and for one
  const html = document.documentElement;
  const [still, live, pause, lost] = ["still", "live", "pause", "lost"].map((id) => document.getElementById(id));
  let paused = false, timer = 0, seen = new Date();

  // What a node is among its siblings. One that came or went must not make others of the rest: what somebody is about
  // to press stays where it is and what it is.
  const kind = (node) => [node.nodeName, node.id, node.dataset?.key].join(" ");

  function carryOver(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if ("own" in old.dataset) return;
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    let next = old.firstChild;
    for (const node of [...fresh.childNodes]) {
      let same = next;
      while (same && kind(same) !== kind(node)) same = same.nextSibling;
      if (!same) {
        old.insertBefore(node, next);
        continue;
      }
      for (; next !== same; next = dropped(next));
      carryOver(same, node);
      next = same.nextSibling;
    }
    while (next) next = dropped(next);
  }

  function dropped(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  async function page(url, how) {
    const options = { headers: { Accept: "text/html" }, cache: "no-store", ...how };
    const answer = await fetch(url, options);
    return [answer, new DOMParser().parseFromString(await answer.text(), "text/html")];
  }

  async function read() {
    try {
      const [answer, fresh] = await page("/", { signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      if (fresh.documentElement.dataset.edition !== html.dataset.edition) return void location.reload();
      document.title = fresh.title;
      for (const part of document.querySelectorAll("#icon, [data-live]")) {
        const news = fresh.getElementById(part.id);
        if (news) carryOver(part, news);
      }
      seen = new Date();
      lost.hidden = true;
    } catch {
      const words = `No answer from the gateway since ${seen.toISOString().slice(11, 19)} UTC. What is below is old.`;
      if (lost.hidden) lost.textContent = words;
      lost.hidden = false;
    }
  }

  async function again() {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    await read();
    clearTimeout(timer);
    timer = setTimeout(again, PAUSE);
  }

  async function refresh(form) {
    const [button, outcome] = [form.querySelector("button"), form.querySelector(".outcome")];
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    outcome.className = "outcome";
    outcome.textContent = "Refreshing…";
    try {
      const [answer, said] = await page(form.action, { method: "POST" });
      outcome.classList.add(answer.ok ? "ok" : "bad");
      outcome.textContent = said.getElementById("result")?.textContent ?? `The gateway answered ${answer.status}.`;
    } catch {
      outcome.classList.add("bad");
      outcome.textContent = "No answer from the gateway; what became of it is among the last refreshes.";
    }
    await read();
    button.removeAttribute("aria-disabled");
  }

  document.addEventListener("submit", (event) => {
    event.preventDefault();
    void refresh(event.target);
  });
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    void again();
  });
  document.addEventListener("visibilitychange", again);
  still.hidden = true;
  live.hidden = false;
  timer = setTimeout(again, PAUSE);
})();
