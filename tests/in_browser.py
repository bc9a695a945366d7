"""Pages in Chromium without a window, for tests."""

import shutil
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt install chromium (any of " + str(BROWSERS) + ")"
)

# In the page: what is wrong with it, in sentences.
PICTURES = """() => {
  const wrong = [];
  for (const image of document.querySelectorAll('img')) {
    if (!image.naturalWidth) wrong.push('a picture that is not there: ' + image.src.slice(0, 60));
    if (!image.alt) wrong.push('a picture without a text: ' + image.src.slice(0, 60));
  }
  for (const drawing of document.querySelectorAll('svg[role=img]')) {
    const box = drawing.getBoundingClientRect();
    const shown = drawing.checkVisibility();
    if (shown && (!box.width || !box.height)) wrong.push('a drawing without a size');
    const named = drawing.getAttribute('aria-label') || drawing.querySelector('title');
    if (!named) wrong.push('a drawing without a text');
  }
  return wrong;
}"""
CONTRAST = """() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (text) => {
    const parts = numbers(text).slice(0, 3).map((value) => value / 255)
      .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const parts = numbers(colour);
      if (parts.length < 4 || parts[3] > 0.5) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  let least = 21, where = '';
  for (const element of document.querySelectorAll('p, h1, h2, h3, td, th, li, figcaption, a')) {
    if (!element.checkVisibility() || !element.textContent.trim()) continue;
    const one = light(getComputedStyle(element).color), other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < least) { least = ratio; where = element.textContent.trim().slice(0, 60); }
  }
  return [least, where];
}"""
PRESSED = "a[href], button:not([disabled]), summary, input, select, [tabindex='0']"


@contextmanager
def started():
    """Chromium; skips where playwright, which drives it, is not there."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def looked_at(browser, address, *, width, scheme):
    """The page, what its console complains of, and what it asked for elsewhere."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    complaints, asked = [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address.as_uri())
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    return page, complaints, outside
