// Let tables sort and filter, draw the figures, and let buttons toggle their lines.
const phone = window.matchMedia("(max-width: 640px)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark", dark.matches);
followScheme();
dark.addEventListener("change", followScheme);
const onDark = JSON.parse(document.getElementById("on-dark").textContent);
const inScheme = (json) =>
  JSON.parse(dark.matches ? json.replace(/#[0-9a-f]{6}/gi, (colour) => onDark[colour]) : json);

const bundle = new Blob([document.getElementById("datatables").textContent], {
  type: "text/javascript",
});
const { default: DataTable } = await import(URL.createObjectURL(bundle));
const FEW = 4; // rows that need no filter
for (const table of document.querySelectorAll("table.sortable")) {
  const filter = table.tBodies[0].rows.length > FEW;
  new DataTable(table, {
    paging: false,
    info: false,
    autoWidth: false,
    searching: filter,
    order: [],
    language: { search: "Filter: " },
    layout: { topStart: filter ? "search" : null, topEnd: null, bottomStart: null, bottomEnd: null },
  });
}
// Space sorts as Enter does, as on any button.
for (const head of document.querySelectorAll("table.sortable thead th")) {
  head.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    head.click();
  });
}
// A number leads to its row's records, as the button at the row's end does.
for (const button of document.querySelectorAll("button.records")) {
  const row = button.closest("tr");
  row.classList.add("led");
  row.addEventListener("click", ({ target }) => {
    if (target.closest("td") && target !== button) button.click();
  });
}

const config = { responsive: true, displayModeBar: false };
const plots = [];
for (const figure of document.querySelectorAll("figure.block")) {
  const plot = figure.querySelector(".plot");
  const draw = () => {
    const { data, layout } = inScheme(figure.querySelector(".data").textContent);
    if (phone.matches) {
      // the buttons name the lines; there is no room beside them
      layout.annotations = (layout.annotations ?? []).filter((label) => !label.name);
      layout.margin.r = 10;
      Object.assign(layout, { hovermode: "closest", dragmode: false });
    }
    return Plotly.newPlot(plot, data, layout, config);
  };
  await draw();
  for (const medium of [dark, phone]) {
    medium.addEventListener("change", () => {
      for (const button of figure.querySelectorAll("button[aria-pressed=false]")) button.click();
      draw();
    });
  }
  plots.push(plot);
  for (const button of figure.querySelectorAll("button[aria-pressed]")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      const { group, axis } = button.dataset;
      if (axis) {
        Plotly.relayout(plot, { [`${axis}.type`]: on ? "log" : "linear" });
      } else {
        const own = plot.data.flatMap((trace, i) => (trace.legendgroup === group ? [i] : []));
        Plotly.restyle(plot, { visible: on }, own);
        // opacity, since plotly does not move hidden labels when an axis changes its type
        const labels = (plot.layout.annotations ?? []).flatMap((label, i) => (label.name === group ? [i] : []));
        Plotly.relayout(plot, Object.fromEntries(labels.map((i) => [`annotations[${i}].opacity`, on ? 1 : 0])));
      }
    });
  }
}

const PAPER = 660; // pixels that fit a printed page
let folded = []; // a print shows folded sections, too
window.addEventListener("beforeprint", () => {
  folded = document.querySelectorAll("details.more:not([open])");
  for (const section of folded) section.open = true;
  for (const plot of plots) Plotly.relayout(plot, { width: PAPER });
});
window.addEventListener("afterprint", () => {
  for (const section of folded) section.open = false;
  for (const plot of plots) Plotly.relayout(plot, { width: null, autosize: true });
});
document.documentElement.dataset.ready = "true";
