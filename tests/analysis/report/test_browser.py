"""The report in a real browser: both themes, the width of a phone, no request, and axe-core.

Chromium is driven over its own debugging pipe, so that nothing but Chromium has to be installed.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scaling.analysis.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = os.environ.get("AXE_CORE", "/usr/lib/node_modules/axe-core/axe.min.js")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
    "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One tab. `requests` are the addresses that pages asked for, `complaints` what their consoles
    said."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._number = read, write, b"", 0
        self._session: dict[str, str] = {}
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """One command of the DevTools protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def open(self, page: Path, *, theme: str = "light", width: int = 1240) -> None:
        """Load a page as a visitor who prefers `theme`, in a window of `width` CSS pixels."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip
        preferred = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=preferred)
        self.call("Page.setBypassCSP", enabled=True)  # for what `ask` adds, not for the page's own
        self.call("Page.navigate", url=page.as_uri())
        self.ask("new Promise(done => document.readyState == 'complete' ? done() : "
                 "addEventListener('load', done))")  # fmt: skip
        # The report draws its charts one by one and says when the last is there.
        self.ask("new Promise(done => { const look = () => !document.querySelector('.chart') || "
                 "document.documentElement.dataset.drawn ? setTimeout(done, 100) : "
                 "setTimeout(look, 20); look(); })")  # fmt: skip

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                          returnByValue=True)  # fmt: skip
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self) -> bytes:
        """A PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True,
                         clip={**self._size(), "x": 0, "y": 0, "scale": 1})  # fmt: skip
        return base64.b64decode(shot["data"])

    def _size(self) -> dict[str, float]:
        content = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"width": content["width"], "height": content["height"]}

    def _receive(self) -> Any:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser ended"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])


@contextmanager
def browse() -> Iterator[Browser]:
    """A browser that ends with the block."""
    assert CHROMIUM
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # Chromium reads its commands from descriptor 3 and answers on 4. The shell moves them there: a
    # `preexec_fn` would fork in Python, which JAX's threads forbid.
    place = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["bash", "-c", place, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, pass_fds=(commands_out, answers_in), stderr=subprocess.DEVNULL
        )
        os.close(commands_out)
        os.close(answers_in)
        try:
            yield Browser(answers_out, commands_in)
        finally:
            os.close(commands_in)
            os.close(answers_out)
            process.terminate()
            process.wait(timeout=30)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed"),
]
VIEWS = [(theme, width) for theme in ("light", "dark") for width in (1240, 390, 360)]
DRAWN = "[...document.querySelectorAll('.chart')].map(c => !!c.querySelector('svg.main-svg'))"
REDRAWN = """new Promise(done => { const look = () =>
    document.documentElement.dataset.drawn ? done() : setTimeout(look, 20); look(); })"""
GROUNDS = """[document.body, document.querySelector('.chart .main-svg')]
    .map(e => getComputedStyle(e).backgroundColor)"""
# Of what is wider than the window and does not scroll by itself.
TOO_WIDE = """[...document.querySelectorAll('main *')].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.table, .heard')
    && !e.closest('svg')).map(e => e.outerHTML.slice(0, 80))"""
CUT_OFF = """[...document.querySelectorAll('.chart')].flatMap(c =>
    [...c.querySelectorAll('.xtitle, .ytitle, .xtick text, .ytick text')].filter(e => {
        const [a, b] = [e.getBoundingClientRect(), c.getBoundingClientRect()];
        return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1
            || a.bottom > b.bottom + 1;
    }).map(e => c.id + ': ' + e.textContent))"""

# Texts of one axis that touch.
OVERLAPPING = """[...document.querySelectorAll('.xaxislayer-above, .yaxislayer-above')]
    .flatMap(axis => { const texts = [...axis.querySelectorAll('text')];
        return texts.slice(1).filter((text, i) => {
            const [a, b] = [texts[i].getBoundingClientRect(), text.getBoundingClientRect()];
            return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        }).map(text => text.textContent); })"""


def luminance(colour: str) -> float:
    """Of a CSS colour `rgb(r, g, b)`, 0 to 1."""
    red, green, blue = (int(part) for part in colour[4:-1].split(","))
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


@pytest.fixture(scope="module", params=["write", "hostile"])
def page(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    studies: SimpleNamespace,
) -> Path:
    """The page of a study, and of one whose files come from strangers."""
    write = getattr(studies, request.param)
    return write_report(write(tmp_path_factory.mktemp("study")))[0]


def test_every_chart_is_drawn_without_complaint_or_request(page: Path) -> None:
    with browse() as browser:
        for theme, width in VIEWS:
            browser.open(page, theme=theme, width=width)
            drawn = browser.ask(DRAWN)
            assert len(drawn) > 15
            assert all(drawn)
        assert browser.complaints == []
        assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}


def test_browser_check_sees_complaints_and_requests(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    image = '<img src="http://example.invalid/x.png">'
    bad.write_text(f'<script>console.error("seen")</script>{image}')
    with browse() as browser:
        browser.open(bad)
        assert any("seen" in complaint for complaint in browser.complaints)
        assert "http://example.invalid/x.png" in browser.requests


def test_page_and_charts_follow_the_visitor_s_theme_and_the_button(page: Path) -> None:
    with browse() as browser:
        for theme in ("light", "dark"):
            browser.open(page, theme=theme)
            before = browser.ask(GROUNDS)
            browser.ask("document.getElementById('theme').click()")
            browser.ask(REDRAWN)
            after = browser.ask(GROUNDS)
            for first, then in zip(before, after, strict=True):
                dark, light = sorted((luminance(first), luminance(then)))
                assert dark < 0.15 < 0.9 < light
                assert (luminance(first) == dark) == (theme == "dark")


@pytest.mark.parametrize("width", [390, 360])
def test_nothing_is_wider_than_a_phone_or_cut_off(page: Path, width: int) -> None:
    with browse() as browser:
        browser.open(page, width=width)
        assert browser.ask("document.documentElement.scrollWidth") == width
        assert browser.ask(TOO_WIDE) == []
        assert browser.ask(CUT_OFF) == []
        assert browser.ask(OVERLAPPING) == []


@pytest.mark.skipif(
    not Path(AXE).exists(),
    reason="axe-core is not installed: npm install -g axe-core, or AXE_CORE=.../axe.min.js",
)
def test_axe_finds_no_violation_in_either_theme_or_width(page: Path) -> None:
    with browse() as browser:
        for theme, width in VIEWS:
            browser.open(page, theme=theme, width=width)
            browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            browser.ask(Path(AXE).read_text(encoding="utf-8") + "; 0")
            found = browser.ask(
                "axe.run(document).then(r => r.violations.map(v => [v.id, v.impact, "
                "v.nodes.slice(0, 3).map(n => n.failureSummary)]))"
            )
            assert found == [], f"{theme}, {width} px"
