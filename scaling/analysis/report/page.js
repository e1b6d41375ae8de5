const charts = document.getElementById("charts").textContent;
const root = document.documentElement;
const button = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
const config = {responsive: true, displayModeBar: false, doubleClick: "reset+autosize"};

// The theme that the visitor chose, else the one of the system.
const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
const other = () => current() === "dark" ? "light" : "dark";

// Each chart in a task of its own: the page can be read and scrolled before the last is drawn.
let turn = 0;
async function draw() {
  const mine = ++turn;
  delete root.dataset.drawn;
  const {themes, texts} = JSON.parse(charts);
  const named = {...texts, ...themes[current()]};  // texts are escaped; a name stands for one alone
  button.textContent = `${other() === "dark" ? "Dark" : "Light"} theme`;
  button.hidden = false;
  const {panels} = JSON.parse(charts, (key, value) =>
    typeof value === "string" && Object.hasOwn(named, value) ? named[value] : value);
  for (const [id, {data, layout}] of Object.entries(panels)) {
    layout.dragmode = touch ? false : "zoom";  // on a phone a finger scrolls the page
    const chart = document.getElementById(id);
    Plotly.react(chart, data, layout, config);
    chart.removeAllListeners("plotly_relayout");
    chart.on("plotly_relayout", change => chooseTicks(chart, layout, change));
    await new Promise(done => setTimeout(done));
    if (mine !== turn) return;  // another theme was chosen meanwhile
  }
  root.dataset.drawn = current();
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
