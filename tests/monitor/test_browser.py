"""The page in a real browser: it shows what is, its buttons act, and nothing that a stranger wrote becomes markup."""

import pytest
from support.browser import chromium
from support.monitor import TOKEN, monitored
from support.nodes import Road, eventually
from support.one_node import configure

from dropr_core.api.node import Node
from dropr_core.model.names import parse_id
from dropr_core.monitor import schedules
from dropr_core.schedules.definitions import Definitions
from dropr_core.schedules.state import StateFile
from dropr_core.system.presence import living

pytestmark = pytest.mark.e2e

EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'>\"'&"
SCHEDULES = {"nightly": {"cron": "0 3 * * *", "zone": "Europe/Berlin", "channel": "jobs", "text": "go"}}
NIGHTLY = "li[data-schedule='nightly']"
PEER = "g.peer[data-peer='{}']"
VIEWS = {
    "overview": "tr", "channels": ".channel", "letters": ".reason", "schedules": ".step .reason", "messages": "td",
}  # fmt: skip
FITS = "const page = document.documentElement; return page.scrollWidth <= page.clientWidth"
CONTRAST = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const back = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return getComputedStyle(document.body).backgroundColor;
};
const texts = "header a, .verdict, main h2, main h3, main p, main small, main td, main th, main dt, main button, "
  + ".state, .legend li, summary, pre";
return [...document.querySelectorAll(texts)]
  .filter((one) => one.checkVisibility() && one.textContent.trim())
  .map((one) => {
    const [a, b] = [luminance(getComputedStyle(one).color), luminance(back(one))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), one.className + " " + one.textContent.slice(0, 40)];
  })
  .filter(([ratio]) => ratio < 4.5);
"""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    """One browser for these tests."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chrome):
    """It, as a tab that has been nowhere; at the end it has complained of nothing."""
    chrome.looks()
    chrome.complaints()
    yield chrome
    assert "[object" not in chrome.text("body")
    assert "undefined" not in chrome.text("body")
    assert chrome.complaints() == []


@pytest.fixture
def node(tmp_path):
    """A node in this process, with a page."""
    monitor = {"listen": "http://127.0.0.1:0", "token": TOKEN}
    with Node.open(
        configure(tmp_path, monitor=monitor, channels={"jobs": {"attempts": 1}}, schedules=SCHEDULES)
    ) as node:
        yield node


@pytest.fixture
def link(node):
    """The link to its page, as `dropr dashboard` shows it."""
    with monitored(node.runtime) as caller:
        yield f"http://{caller.place}/#token={TOKEN}"


def bury(node, reason, **options):
    """A message that came, and was buried; its id."""
    identity = node.put(b"body", channel="jobs", **options)
    assert node.runtime.inbox.bury(parse_id(identity), reason)
    return identity


def state(node, identity):
    """Of a message that came."""
    return str(node.runtime.inbox.status(parse_id(identity)).state)


def ran(node, result):
    """A run of the schedule whose handler gave this back, as the daemon writes it down."""
    run = schedules.run_now(node.runtime, "nightly")
    with StateFile(node.runtime.documents, "nightly").changing() as kept:
        kept.find(run.id).state, kept.find(run.id).result = "processed", result
    return run


def unfold(browser):
    """Show the last runs of the schedule, as a click does."""
    eventually(lambda: browser.text(f"{NIGHTLY} summary"), what="the schedule is shown")
    browser.js("document.querySelector(arguments[0]).open = true", f"{NIGHTLY} details")


def test_real_traffic_is_seen_and_a_dead_peer_turns_red(browser, tmp_path):
    """Two real nodes talk; one's server is killed: its box, its line, its word and the verdict say so; and back."""
    road = Road(tmp_path)
    try:
        shop, ware = road.build("shop", "ware", shop={"monitor": {"listen": "http://127.0.0.1:0"}})
        server = ware.run("server")
        shop.run("server")
        shop.run("daemon")
        url = eventually(lambda: [url for one in living(shop.data / "run", "monitor") for url in one["urls"]])[0]
        browser.open(f"{url}/#token={(shop.data / 'monitor.token').read_text().strip()}")
        browser.sees("#title", "shop")
        with shop.opened() as node:

            def goes_on():
                node.send(b"x", to="ware", channel="orders")
                return browser.attribute(PEER.format("ware"), "class") == "peer good"

            eventually(goes_on, what="ware is seen to be up")
            eventually(lambda: "/s" in browser.text(".flow"), what="the rates are told")
            colour = "return getComputedStyle(document.querySelector(arguments[0] + ' .box')).stroke"
            before = browser.js(colour, PEER.format("ware"))
            server.kill()
            node.send(b"x", to="ware", channel="orders")
            browser.sees("#verdict", "ware cannot be reached")
            assert browser.attribute(PEER.format("ware"), "class") == "peer bad"
            assert "unreachable, 1 message" in browser.attribute(PEER.format("ware"), "aria-label")
            assert browser.js(colour, PEER.format("ware")) != before
            assert browser.attribute("path.way", "class") == "way bad"
            browser.sees("tr[data-peer='ware']", "unreachable", "Try now")
            server.start()
            browser.sees("#verdict", "all is well")
    finally:
        road.close()


def test_buttons_act_on_the_store(browser, node, link):
    """Kick, bury with a reason, hold with a reason and release, pause and go on, cancel, send again."""
    runtime = node.runtime
    buried = bury(node, "it broke")
    ready = node.put(b"other", channel="jobs")
    sent = node.send(b"out", to="rome", channel="orders")
    browser.open(link)
    browser.turn("letters")
    browser.sees(f"li[data-id='{buried}']", "buried", "it broke")
    browser.click(f"li[data-id='{buried}'] [data-do='kick']")
    eventually(lambda: state(node, buried) == "ready")
    browser.sees("#notes", "1 message ready again")

    browser.turn(f"message/{ready}")
    browser.sees(".story", "it is here, ready", "came from")
    browser.click("[data-do='bury']")
    browser.js("document.querySelector('dialog input').value = 'by this test'")
    browser.click("dialog button.main")
    eventually(lambda: state(node, ready) == "buried")
    assert runtime.inbox.status(parse_id(ready)).reason == "by this test"
    browser.sees(".step", "buried", "by this test")

    browser.turn("overview")
    browser.click("tr[data-peer='rome'] [data-do='hold']")
    browser.click("dialog button:not(.main)")  # left as it is
    assert not runtime.outbox.peers()["rome"].held
    browser.click("tr[data-peer='rome'] [data-do='hold']")
    browser.click("dialog button.main")
    eventually(lambda: runtime.outbox.peers()["rome"].held)
    browser.sees("#verdict", "rome is held")
    browser.click("tr[data-peer='rome'] [data-do='release']")
    eventually(lambda: not runtime.outbox.peers()["rome"].held)

    browser.turn("channels")
    browser.click("li[data-channel='jobs'] [data-do='pause']")
    browser.click("dialog button.main")
    eventually(lambda: "jobs" in runtime.pauses.now())
    browser.sees("li[data-channel='jobs']", "paused", "paused by hand")
    browser.click("li[data-channel='jobs'] [data-do='unpause']")
    eventually(lambda: "jobs" not in runtime.pauses.now())

    browser.turn(f"message/{sent.id}")
    browser.click("[data-do='cancel']")
    eventually(lambda: str(runtime.outbox.status(parse_id(sent.id))[0].state) == "cancelled")


def test_what_strangers_wrote_is_text(browser, node, link):
    """Reasons, errors, headers, bodies and names of files: shown letter by letter, run by nobody."""
    buried = bury(node, EVIL, headers={"evil": EVIL})
    identity = node.put(EVIL.encode(), channel="jobs", headers={"x": EVIL})
    node.runtime.outbox.hold("rome", EVIL)
    node.runtime.pauses.pause("jobs", None, EVIL)
    browser.open(link)
    browser.sees("tr[data-peer='rome']", EVIL)
    browser.turn("channels")
    browser.sees("li[data-channel='jobs']", EVIL)
    browser.turn("letters")
    browser.sees(f"li[data-id='{buried}'] .reason", EVIL)
    browser.turn(f"message/{identity}")
    browser.sees(".facts-list", EVIL)
    browser.js("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Show the body').click()")
    browser.sees(".body", EVIL)
    browser.turn(f"message/{EVIL}")
    browser.sees(".story", "is no id of a message")
    assert browser.js("return window.evil ?? null") is None
    assert browser.js("return document.querySelectorAll('main img, main script, body > img').length") == 0
    refused = "try { document.body.innerHTML = '<b>x</b>'; return 'set' } catch (error) { return error.name }"
    assert browser.js(refused) == "TypeError"  # the page's policy lets not even its own code write markup
    assert any("TrustedHTML" in one for one in browser.complaints())


def test_messages_are_found_by_the_beginning_of_an_id_and_by_channel(browser, node, link):
    """And one of them is opened."""
    identity = node.put(b"one", channel="jobs")
    node.put(b"two", channel="others")
    browser.open(link)
    browser.turn("messages")
    eventually(lambda: browser.js("return document.querySelectorAll('tbody tr').length") == 2)
    browser.js(
        "document.querySelector('[name=channel]').value = 'jobs'; document.querySelector('.search').requestSubmit()"
    )
    eventually(lambda: browser.js("return document.querySelectorAll('tbody tr').length") == 1)
    search = (
        "document.querySelector('[name=channel]').value = ''; document.querySelector('[name=id]').value = arguments[0];"
        "document.querySelector('.search').requestSubmit()"
    )
    browser.js(search, identity[:4])
    browser.sees("[role=status].empty", "2 messages.")
    browser.js(search, identity)
    browser.sees("[role=status].empty", "1 message.")
    browser.click("tbody a.id")
    browser.sees(".story h2", identity)
    browser.sees(".events", "shop", "came from")


def test_a_schedule_is_seen_with_its_runs_and_steered(browser, node, link):
    """Rule in words, zone and due time; each run with its result as text; run now, pause and go on act on the store."""
    ran(node, f"42 rows {EVIL}")
    browser.open(link)
    browser.turn("schedules")
    browser.sees(NIGHTLY, "every day at 03:00", "Europe/Berlin", "(in ", "processed")
    unfold(browser)
    browser.sees(f"{NIGHTLY} .step", "processed", f"42 rows {EVIL}", "by hand")
    assert browser.js("return window.evil ?? null") is None
    assert browser.js("return document.querySelectorAll('main img, main script').length") == 0

    browser.click(f"{NIGHTLY} [data-do='schedule-pause']")
    browser.click("dialog button.main")
    eventually(lambda: "nightly" in Definitions(node.runtime.config, node.runtime.documents).paused)
    browser.sees(f"{NIGHTLY} .state", "paused")
    browser.sees(NIGHTLY, "never")
    browser.click(f"{NIGHTLY} [data-do='schedule-resume']")
    eventually(lambda: not Definitions(node.runtime.config, node.runtime.documents).paused)
    browser.sees(f"{NIGHTLY} .state", "on")

    browser.click(f"{NIGHTLY} [data-do='schedule-run']")
    browser.click("dialog button.main")
    browser.sees(f"{NIGHTLY} .step", "ready")  # the newest is the first
    assert [one["state"] for one in schedules.run_documents(node.runtime, "nightly")] == ["ready", "processed"]
    browser.js("document.querySelector(arguments[0]).focus()", f"{NIGHTLY} summary")
    browser.keys("\ue007")
    eventually(lambda: not browser.js("return document.querySelector(arguments[0]).open", f"{NIGHTLY} details"))


def test_it_is_readable_everywhere(browser, node, link):
    """In the light and in the dark every text stands out (4.5 : 1); on a phone nothing has to be pushed sideways."""
    bury(node, "a reason without a place to break: " + "x" * 300)
    node.send(b"x", to="rome", channel="orders")
    node.runtime.outbox.hold("rome", "held by this test")
    node.runtime.pauses.pause("jobs", None, "for a while")
    ran(node, "y" * 300)
    browser.open(link)
    browser.sees("#title", "shop")
    browser.turn("schedules")
    unfold(browser)  # it stays so
    grounds = set()
    for dark in (False, True):
        for width in (1280, 360):
            browser.looks(dark=dark, width=width)
            for view, awaited in VIEWS.items():
                browser.turn(view)
                eventually(lambda one=awaited: browser.text(f"main {one}"), what=view)
                eventually(lambda: browser.js(FITS), what=f"{view} fits into {width}")
                assert browser.js(CONTRAST) == [], (view, dark)
        grounds.add(browser.js("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_it_is_used_by_keyboard_alone(browser, node, link):
    """The first key leads to the content; a peer of the picture is a button, for its row; Esc ends a dialog."""
    browser.open(link)
    browser.sees(PEER.format("rome"), "rome")
    browser.keys("\ue004")
    assert browser.js("return document.activeElement.className") == "skip"
    browser.js("document.querySelector(arguments[0]).focus()", PEER.format("rome"))
    browser.keys("\ue007")
    assert browser.js("return document.activeElement.dataset.peer") == "rome"
    browser.keys("\ue004")
    assert browser.js("return document.activeElement.dataset.do") == "hold"
    browser.keys("\ue007")
    browser.sees("dialog", "Hold rome?")
    browser.keys("\ue00c")
    eventually(lambda: not browser.text("dialog"))
    nameless = (
        "return [...document.querySelectorAll('button, input, select, a')]"
        ".filter((one) => !one.textContent.trim() && !one.labels?.length && !one.ariaLabel).length"
    )
    assert browser.js(nameless) == 0


def test_the_token_is_asked_for_and_leaves_the_address(browser, node, link):
    """Without it, or with a wrong one, nothing is told; with it, the address bar shows it no longer."""
    url = link.partition("#")[0]
    browser.js("sessionStorage.clear()") if browser.js("return location.protocol") == "http:" else None
    browser.open(url)
    browser.sees("form.login", "dropr dashboard")
    assert "rome" not in browser.text("body")
    browser.open(f"{url}#token=wrong-and-long-enough")
    browser.sees("form.login", "this is not the token")
    browser.js(
        "document.querySelector('[name=token]').value = arguments[0]; document.querySelector('form').requestSubmit()",
        TOKEN,
    )
    browser.sees("tbody", "rome")
    assert TOKEN not in browser.js("return location.href")
    assert browser.js("return document.cookie") == ""
