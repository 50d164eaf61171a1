"""The style sheet of the report page."""

from __future__ import annotations

#: Line colours are those of Okabe and Ito, lighter on a dark page.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f5f6f8; --text: #1b1f24; --soft: #57606a;
  --rule: #d0d7de; --grid: #e3e6ea; --link: #0550ae;
  --bad: #a40e26; --bad-back: #fff0ee; --note: #0550ae; --note-back: #eef6ff;
  --c0: #0072b2; --c1: #c04f00; --c2: #00805c; --c3: #b0508a; --c4: #2b8fc4;
  --c5: #a87400;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --card: #1a2028; --text: #e6e9ed; --soft: #a3adb8;
    --rule: #38414c; --grid: #2a323c; --link: #79b8ff;
    --bad: #ff9d94; --bad-back: #36191a; --note: #8cc4ff; --note-back: #14263b;
    --c0: #56b4e9; --c1: #ff8a3d; --c2: #2ecc9a; --c3: #e59ac6; --c4: #9bd3f5;
    --c5: #f0c04a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif;
}
main, header, footer { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
footer { padding-bottom: 2rem; color: var(--soft); font-size: .875rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h1 { overflow-wrap: anywhere; }
h2 {
  font-size: 1.3rem; margin: 2.25rem 0 .75rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--rule);
}
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.lead { font-size: 1.1rem; max-width: none; }
.soft { color: var(--soft); }
nav { margin: .75rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.facts {
  display: grid; gap: .5rem 1.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr));
}
.facts div { min-width: 0; }
.facts dt { color: var(--soft); font-size: .875rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.finding {
  border-left: .3rem solid var(--note); background: var(--note-back);
  padding: .5rem .9rem; margin: .6rem 0; border-radius: 0 .3rem .3rem 0;
}
.finding.serious { border-color: var(--bad); background: var(--bad-back); }
.finding p { margin: .15rem 0; max-width: none; }
.finding strong { color: var(--note); }
.finding.serious strong { color: var(--bad); }
.charts {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
}
figure { margin: 0; padding: .9rem; min-width: 0; }
figure { background: var(--card); border-radius: .5rem; }
figure > figcaption { color: var(--soft); font-size: .875rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.dashed { stroke-dasharray: 6 4; }
.swatch {
  display: inline-block; width: 1.1rem; height: 0; margin-right: .45rem;
  border-top: 3px solid; vertical-align: middle;
}
.swatch.dashed { border-top-style: dashed; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
.line { stroke: var(--c); } .dot { fill: var(--c); }
.swatch { border-top-color: var(--c); }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px;
}
table { border-collapse: collapse; font-size: .9rem; }
th, td {
  text-align: left; padding: .25rem .9rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--rule);
}
figure table { width: 100%; font-size: .8125rem; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
thead .number { white-space: normal; }
figure th, figure thead .number { white-space: nowrap; }
td details { margin: 0; }
td summary { padding: 0; }
tbody th { font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: .85em/1.45 ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; }
td code, th code { overflow-wrap: anywhere; }
.settings th, .settings td { min-width: 10rem; }
pre { background: var(--card); padding: .75rem; border-radius: .4rem; margin: .5rem 0; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .6rem 0; }
summary { cursor: pointer; padding: .2rem 0; }
img { max-width: 100%; height: auto; display: block; border-radius: .3rem; }
.scroll img { min-width: 40rem; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap;
}
@media (max-width: 40rem) {
  figure { padding: .6rem; }
  figure th, figure td { padding-right: .5rem; }
  h1 { font-size: 1.4rem; }
  svg text { font-size: 15px; }
}
@media print { details:not([open]) { display: none; } nav { display: none; } }
""".strip()
