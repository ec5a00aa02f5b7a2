"""Open the pages of a book in a browser, at two widths, light and dark, and write down what is there.

Run with the environment of requirements-browser.lock:
    look_book.py BROWSER BASE_URL PAGES.json OUT.json [SCREENSHOTS]
"""

import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = {"wide": (1280, 900), "phone": (390, 844)}
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

LOOK = """
() => {
  const root = document.documentElement;
  const images = [...document.querySelectorAll("img")].map(i => (
    { src: i.currentSrc || i.src, alt: i.alt, width: i.naturalWidth, shown: i.getClientRects().length > 0 }));
  // What reaches beyond the right edge without a box around it that scrolls.
  const wide = [...document.querySelectorAll("article *")].filter(e => {
    if (e.getBoundingClientRect().right <= innerWidth + 1 || !e.getClientRects().length) return false;
    for (let up = e; up && up !== document.body; up = up.parentElement)
      if (/auto|scroll|hidden|clip/.test(getComputedStyle(up).overflowX)) return false;
    return true;
  }).map(e => e.tagName + ": " + e.textContent.trim().slice(0, 60));
  const rgba = text => {
    const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
    const c = canvas.getContext("2d"); c.fillStyle = text; c.fillRect(0, 0, 1, 1);
    return [...c.getImageData(0, 0, 1, 1).data];
  };
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const l = c.slice(0, 3).map(v => linear(v / 255));
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const ground = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] > 200) return c; } return [255, 255, 255, 255]; };
  const faint = [];
  for (const e of document.querySelectorAll("article :is(p, li, td, th, h1, h2, h3, dt, figcaption, pre, a)")) {
    if (!e.textContent.trim() || !e.getClientRects().length || e.classList.contains("headerlink")) continue;
    const a = light(rgba(getComputedStyle(e).color)), b = light(ground(e));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 3.5) faint.push([e.tagName, e.textContent.trim().slice(0, 60), contrast]);
  }
  return { theme: root.dataset.theme, scroll: root.scrollWidth, width: innerWidth, images, wide, faint,
    ground: rgba(getComputedStyle(document.body).backgroundColor).slice(0, 3), title: document.title };
}
"""

PLACE = """
([j, i]) => {
  const box = map.getBoundingClientRect(), g = geometry();
  return [box.left + g.x(D.east[i]), box.top + g.y(D.north[j])];
}
"""
SEEN = """
() => ({ spaxel, said: said.textContent, spectrum: spectrum(D.windows[0], "data"), wave: D.windows[0].wave,
  place: spaxel && [D.east[spaxel[1]], D.north[spaxel[0]]], focus: document.activeElement.id })
"""


def open_page(browser, url, size, scheme, shot):
    """Everything about one page, at one size, in one colour scheme."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, has_touch=size[0] < 500
    )
    page, said, failed, asked = context.new_page(), [], [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("response", lambda reply: failed.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url, wait_until="load")
    # Images that wait until they are scrolled to.
    page.evaluate(
        "async () => { for (const i of document.images) i.loading = 'eager';"
        " await Promise.all([...document.images].map(i => i.decode().catch(() => 0))); }"
    )
    found = page.evaluate(LOOK) | {"console": said, "failed": failed, "asked": asked}
    if shot:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=shot, full_page=True)
    context.close()
    return found


def switch_theme(browser, url):
    """Themes that the page's own button leads through."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url, wait_until="networkidle")
    themes = [page.evaluate("document.documentElement.dataset.theme")]
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        themes.append(page.evaluate("document.documentElement.dataset.theme"))
    page.close()
    return themes


def move_over_map(browser, url, within, spaxels):
    """What the interactive map shows of some spaxels when the mouse is there, and after an arrow key."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url, wait_until="networkidle")
    frame = page.main_frame
    if within:
        page.locator("iframe").scroll_into_view_if_needed()
        frame = page.locator("iframe").element_handle().content_frame()
    frame.wait_for_function("spaxel !== null")
    frame.wait_for_timeout(500)
    corner = page.locator("iframe").bounding_box() if within else {"x": 0, "y": 0}
    seen = [frame.evaluate(SEEN)]
    for spaxel in spaxels:
        x, y = frame.evaluate(PLACE, spaxel)
        page.mouse.move(corner["x"] + x, corner["y"] + y, steps=4)
        page.wait_for_timeout(400)
        seen.append(frame.evaluate(SEEN))
    # By keys alone: to the map, and one spaxel up.
    frame.locator("#truth, #which").last.focus()
    while frame.evaluate("document.activeElement.id") != "map":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    seen.append(frame.evaluate(SEEN))
    page.close()
    return seen


def main(executable, base, pages, out, shots=None):
    """Look at all pages."""
    wanted = json.loads(Path(pages).read_text())
    result = {"pages": {}}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        for page in wanted["pages"]:
            for width, size in WIDTHS.items():
                for scheme in ("light", "dark"):
                    shot = Path(shots) / f"{page.replace('/', '_')}_{width}_{scheme}.png" if shots else None
                    found = open_page(browser, f"{base}/{page}", size, scheme, shot)
                    result["pages"][f"{page} {width} {scheme}"] = found
        result["themes"] = switch_theme(browser, f"{base}/{wanted['pages'][0]}")
        if wanted.get("map"):
            result["map"] = move_over_map(browser, f"{base}/{wanted['map']}", True, wanted["spaxels"])
            result["alone"] = move_over_map(browser, wanted["alone"], False, wanted["spaxels"])
        browser.close()
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
