// Jupyter's widgets without a kernel: formulas through MathJax 3, and names for what comes without one.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) return;
  // The widgets' manager calls MathJax 2.
  if (window.MathJax && !MathJax.Hub) {
    MathJax.Hub = { Queue: (call) => MathJax.startup.promise.then(() => MathJax.typesetPromise([call[2]])) };
  }
  const repair = () => {
    document.querySelectorAll(".jupyter-widgets").forEach((box) => {
      const label = box.querySelector(".widget-label")?.textContent.trim();
      box.querySelectorAll("[role=slider], input, select").forEach((control) => {
        if (label && !control.getAttribute("aria-label")) control.setAttribute("aria-label", label);
      });
      box.querySelectorAll(".widget-readout").forEach((readout) => {
        if (label && !readout.getAttribute("aria-label")) {
          readout.setAttribute("aria-label", `${label}, as a number`);
          if (readout.isContentEditable) readout.setAttribute("role", "textbox");
        }
      });
    });
  };
  new MutationObserver(repair).observe(document.body, { childList: true, subtree: true });
  repair();
});
