// Replaces the parts of a page that have data-live by what the server says now, as often as the page asks for.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  if (!seconds) return;
  const refresh = async () => {
    const parts = [...document.querySelectorAll("[data-live]")];
    if (document.hidden || !parts.length) return;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (!answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts) {
        const fresh = page.getElementById(part.id);
        const busy = part.contains(document.activeElement) || [...part.querySelectorAll("input")].some((one) => one.value);
        if (fresh && !busy) part.replaceWith(document.adoptNode(fresh));
      }
    } catch {
      // The server is away: what is shown stays, and the next try comes.
    }
  };
  setInterval(refresh, 1000 * seconds);
})();
