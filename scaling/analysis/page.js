const charts = document.getElementById("charts").textContent;
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
const config = {responsive: true, displayModeBar: false, doubleClick: "reset+autosize"};

function draw() {
  const {themes} = JSON.parse(charts);
  const theme = themes[dark.matches ? "dark" : "light"];
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
