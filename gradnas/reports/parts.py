"""Fragments of HTML of which reports are made, and how a page looks."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from gradnas.pictures.canvas import plain


def escaped(text: object) -> str:
    """A text as HTML; whatever comes from files goes through here."""
    return html.escape(plain(text))


def figure(svg: str, caption: str = "") -> str:
    """A picture, with a caption that is HTML."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure>\n{svg}\n{below}</figure>"


def section(title: str, text: str) -> str:
    """A part of the page with its heading."""
    return f"<section>\n<h2>{title}</h2>\n{text}\n</section>"


def notice(text: str) -> str:
    """What a reader must not miss."""
    # A line may not end within the name of an option.
    options = re.sub(
        r"(?<![\w-])--[a-z][a-z-]*", r'<span class="option">\g<0></span>', escaped(text)
    )
    return f'<p class="notice">{options}</p>'


def headed(title: str, text: str) -> str:
    """A fragment below a heading of the third level; without a title as it is."""
    return f"<h3>{title}</h3>\n{text}" if title else text


def bullets(items: Iterable[str]) -> str:
    """A list of texts that are HTML."""
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def row(cells: Sequence[str], tag: str = "td") -> str:
    """A row of a table, of cells that are HTML."""
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def joined(parts: Iterable[str]) -> str:
    """The fragments that are not empty, one below the other."""
    return "\n".join(part for part in parts if part)


CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 840px; padding: 28px 30px 60px; background: #fff; color: #1f2933;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", \
sans-serif; }
h1 { margin: 0 0 14px; font-size: 30px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid #d5dce3; font-size: 20px; }
h3 { margin: 22px 0 6px; font-size: 15px; }
.about { margin: 0; color: #52606d; overflow-wrap: anywhere; }
.lead { margin: 16px 0; padding: 12px 16px; border-left: 5px solid #7b8794; background: #f4f6f8; \
font-size: 17px; }
.lead.good { border-color: #3c8a3a; background: #eff7ee; }
.lead.bad { border-color: #b3261e; background: #fcf0ef; }
.notice { margin: 12px 0; padding: 10px 16px; border-left: 5px solid #d18b1f; background: #fff7e8;
  overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tiles div { flex: 1 1 0; min-width: min-content; padding: 10px 14px; border: 1px solid #d5dce3; \
border-radius: 8px; }
.tiles b { display: block; font-size: 20px; line-height: 1.3; white-space: nowrap; }
.tiles span { color: #52606d; font-size: 13px; line-height: 1.3; display: block; }
figure { margin: 10px 0 18px; }
figure svg { display: block; }
svg.plot text { font-family: inherit !important; }
figcaption, .caption { margin-top: 6px; color: #52606d; font-size: 13px; }
pre { padding: 12px 14px; border-radius: 8px; background: #f4f6f8; font-size: 13px; white-space: \
pre-wrap;
  overflow-wrap: anywhere; user-select: all; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: 13px; }
p code, .option { white-space: nowrap; }
table { border-collapse: collapse; font-size: 13.5px; }
th, td { padding: 3px 16px 3px 0; border-bottom: 1px solid #e9edf1; text-align: left; \
vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 400; color: #52606d; white-space: nowrap; }
/* Of many columns none gets so narrow that its words are cut. */
table.wide th { white-space: normal; }
table.wide th, table.wide td { overflow-wrap: break-word; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 28px; }
.pair h3 { margin-top: 0; }
.pair table, table.wide, table.commands { width: 100%; }
ul { padding-left: 20px; }
li { margin: 4px 0; }
@media print {
  @page { margin: 14mm; }
  figure svg { max-width: 86% !important; }
  .lead { font-size: 14px; }
  h2 { margin-top: 20px; }
  body { padding: 0; font-size: 12px; print-color-adjust: exact; -webkit-print-color-adjust: \
exact; }
  h2, h3 { break-after: avoid; }
  figure, tr, .lead, .notice, .tiles { break-inside: avoid; }
}
table + table { margin-top: 16px; }
@media (max-width: 640px) {
  body { padding: 18px 14px 40px; }
  .pair { grid-template-columns: 1fr; }
  /* What is wider than the window moves sideways by itself, and not the page. */
  table { display: block; overflow-x: auto; }
  th { white-space: normal; }
  th, table.wide td { overflow-wrap: normal; }
}
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; }
  body { background: #14181d; color: #e4e7eb; }
  a { color: #8fb8ff; }
  h2 { border-color: #3a4450; }
  .about, .tiles span, figcaption, .caption, th { color: #aab4bf; }
  .lead { background: #1f262e; }
  .lead.good { background: #17261a; }
  .lead.bad { background: #2c1a1a; }
  .notice { background: #2a2214; }
  .tiles div { border-color: #3a4450; }
  pre { background: #1f262e; }
  th, td { border-color: #2c343d; }
  /* Pictures are drawn in dark ink. */
  figure svg, figure img { background: #f7f9fb; border-radius: 8px; }
}
"""
