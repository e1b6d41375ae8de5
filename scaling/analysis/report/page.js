const charts = document.getElementById("charts").textContent;
const root = document.documentElement;
const button = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
const config = {responsive: true, displayModeBar: false, doubleClick: "reset+autosize"};

// The theme that the visitor chose, else the one of the system.
const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
const other = () => current() === "dark" ? "light" : "dark";

function draw() {
  const {themes} = JSON.parse(charts);
  const theme = themes[current()];
  button.textContent = `${other() === "dark" ? "Dark" : "Light"} theme`;
  button.hidden = false;
  const {panels} = JSON.parse(charts, (key, value) =>
    typeof value === "string" && Object.hasOwn(theme, value) ? theme[value] : value);
  for (const [id, {data, layout}] of Object.entries(panels)) {
    layout.dragmode = touch ? false : "zoom";  // on a phone a finger scrolls the page
    const chart = document.getElementById(id);
    Plotly.react(chart, data, layout, config);
    chart.removeAllListeners("plotly_relayout");
    chart.on("plotly_relayout", change => chooseTicks(chart, layout, change));
  }
}

// The chosen ticks suit the whole range; zoomed in, Plotly's own are denser.
function chooseTicks(chart, layout, change) {
  const update = {};
  for (const axis of ["xaxis", "yaxis"]) {
    if (!(axis + ".range[0]" in change)) continue;
    const whole = layout[axis].range;
    const same = Math.abs(change[axis + ".range[0]"] - whole[0]) < 1e-9;
    update[axis + ".tickmode"] = same ? "array" : "auto";
  }
  if (Object.keys(update).length) Plotly.relayout(chart, update);
}

draw();
dark.addEventListener("change", draw);
button.addEventListener("click", () => { root.dataset.theme = other(); draw(); });
