"""The dashboard as it is committed, in a real Chromium, before a made-up gateway."""

import hashlib
import re

import pytest
from playwright.sync_api import expect

from shoestring.stack.browser import opened_browser
from shoestring.testing.engines import need_chromium
from tests.gateway.dashboard_stub import KEY, SECRET, STATIC, made_up, serving

SOURCES = STATIC.parent / "dashboard"
MOST_BYTES = 400 * 1000
LIMIT_S = 60.0
VIEWS = ("Overview", "Engines", "Requests", "Keys", "Playground")
HOSTILE = (
    "<script>window.hit=1</script><img src=x onerror=window.hit=1>"
    "[a](javascript:window.hit=1) <b>**bold**</b> &lt;"
)

CONTRASTS = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const light = (rgb) => rgb
    .map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const {rgb, a} = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    const style = getComputedStyle(element);
    if (!node.data.trim() || !element.checkVisibility() || element.closest(".unseen")) continue;
    const color = element.closest("svg") ? style.fill : style.color;
    const [dark, bright] = [light(parse(color).rgb), light(ground(element))].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    if (ratio < 4.5) low.push(`${node.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""

FOCUSED = """() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  const labels = [...(at.labels ?? [])].map((label) => label.textContent).join(" ");
  const by = (at.getAttribute("aria-labelledby") ?? "").split(" ")
    .map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  return {
    tag: at.tagName,
    name: (at.ariaLabel || by.trim() || labels || at.textContent).trim(),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    inDialog: at.closest("dialog") !== null,
  };
}"""


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all; each test has a page and cookies of its own."""
    need_chromium()
    with opened_browser() as opened:
        yield opened


@pytest.fixture
def stub():
    """A made-up gateway of the test's own."""
    return made_up()


@pytest.fixture
def page(browser, stub):
    """The sign-in page; what its policy or its scripts complain of fails the test."""
    complaints = []
    with serving(stub) as origin:
        page = browser.open_page(origin, limit_s=LIMIT_S)
        expect.set_options(timeout=LIMIT_S * 1000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text))
        page.goto(f"{origin}/dashboard/")
        yield page
        page.context.close()
    # That an answer was no 2xx is said by the browser, not by the page.
    assert [said for said in complaints if "Failed to load resource" not in said] == []


@pytest.fixture
def inside(page):
    """The page of somebody who has signed in."""
    sign_in(page)
    return page


def sign_in(page, key=KEY):
    """Type a key and send it."""
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    if key == KEY:
        expect(page.locator(".figures")).to_be_visible()


def go_to(page, view):
    """Open a view by its link, and wait until it has its content."""
    page.get_by_role("link", name=view, exact=True).click()
    expect(page.get_by_role("heading", level=1, name=view)).to_be_attached()
    expect(page.get_by_text("Asking the gateway…")).to_have_count(0)


def ask(page, prompt="why?"):
    """Ask the playground's model."""
    go_to(page, "Playground")
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Ask").click()


def state_of_answer(page):
    """Where the page says how the answer stands."""
    return page.locator("section", has_text="TTFT").get_by_role("status")


def test_the_built_page_is_that_of_the_sources():
    """Whoever changes a source builds; the digests need no npm to be checked."""
    listed = {
        path: digest
        for digest, path in (
            line.split("  ") for line in (STATIC / "sources.sha256").read_text().splitlines()
        )
    }
    files = [path for folder in ("src", "public") for path in (SOURCES / folder).rglob("*")]
    on_disk = {str(path.relative_to(SOURCES)) for path in files if path.is_file()}

    assert on_disk == {path for path in listed if path.startswith(("src/", "public/"))}
    assert listed == {
        path: hashlib.sha256((SOURCES / path).read_bytes()).hexdigest() for path in listed
    }


def test_the_built_page_is_small_and_has_nothing_inline():
    """A strict policy needs no exception, no other host is named, and a phone loads little."""
    html = (STATIC / "index.html").read_text()

    assert sum(file.stat().st_size for file in STATIC.iterdir()) < MOST_BYTES
    assert re.findall(r"<script(?![^>]* src=\"\./)|<style| style=| on\w+=|https?://", html) == []


def test_a_wrong_key_is_refused_and_said(page):
    """The gateway's own words are read out, and the field is marked."""
    sign_in(page, "shoe_wrong")

    expect(page.get_by_role("alert")).to_have_text("This key is not known")
    expect(page.get_by_label("Key")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("navigation")).to_have_count(0)


def test_a_good_key_opens_the_page_and_stays_nowhere_in_it(inside):
    """The session outlives a reload by a cookie that scripts cannot read."""
    inside.reload()

    expect(inside.get_by_role("heading", name="Overview")).to_be_attached()
    kept = inside.evaluate("() => document.cookie + JSON.stringify(localStorage)")
    assert kept == "{}"
    assert KEY not in inside.content()


def test_signing_out_ends_the_session(inside, stub):
    """Nothing that was seen stays on the page."""
    inside.get_by_role("button", name="Sign out").click()

    expect(inside.get_by_label("Key")).to_be_visible()
    expect(inside.get_by_text("Total requests")).to_have_count(0)
    assert stub.sessions == set()


def test_the_five_figures_are_shown_with_their_units(inside):
    """Those of the note, as the gateway tells them."""
    figures = inside.locator(".figures > div")

    expect(figures).to_have_text([
        "Total requests18,342", "Total errors61 0.33 %", "Average inference time2.84 s",
        "Model memory usage1.87 GiB", "Active requests5",
    ])  # fmt: skip


def test_what_is_not_known_is_a_dash_with_its_reason(page, stub):
    """Null is neither zero nor an empty place."""
    stub.overview["figures"]["mean_inference_s"] = None
    sign_in(page)

    mean = page.locator(".figures > div", has_text="Average").locator(".none")
    expect(mean).to_contain_text("\N{EN DASH}")
    expect(mean).to_have_attribute("title", "no request was answered yet")


def test_a_chart_breaks_where_nothing_is_known(inside):
    """A quiet spell is a gap of the line, not a line to zero."""
    ttft = inside.locator("figure", has_text="Time to first token").locator(".line")
    memory = inside.locator("figure", has_text="Memory").locator(".line.main")

    assert [line.get_attribute("d").count("M") for line in ttft.all()] == [2, 2]
    assert memory.get_attribute("d").count("M") == 1


def test_a_chart_is_read_by_arrow_keys(inside):
    """The values at the chosen time are told to those who do not see the line."""
    plot = inside.get_by_role("slider", name="Time to first token")
    plot.focus()
    latest = plot.get_attribute("aria-valuetext")
    plot.press("ArrowLeft")

    expect(plot).to_have_attribute("aria-valuenow", "178")
    assert re.fullmatch(r"\d\d:\d\d:\d\d: p50 \d+ ms, p90 \d+ ms", latest)
    assert plot.get_attribute("aria-valuetext") != latest


def test_trouble_is_said_on_the_overview(page, stub):
    """A lost Redis, a drain and a dead engine are lines, not only colours."""
    stub.overview |= {"redis": "lost", "draining": True}
    sign_in(page)

    expect(page.locator(".notice")).to_contain_text(
        ["draining", "Redis is lost", "llama-b went down"]
    )


def test_engines_and_aliases_are_shown(inside):
    """State, load, memory and the last error of each; the shares of each alias."""
    go_to(inside, "Engines")

    expect(inside.get_by_role("row", name="llama-b")).to_contain_text("connection refused")
    expect(inside.get_by_role("row", name="ollama-a")).to_contain_text("3 of 4")
    expect(inside.locator(".target .number")).to_have_text(["75 %", "25 %"])


def test_requests_are_found_by_words_and_failure(inside):
    """The newest hundred can be narrowed down."""
    go_to(inside, "Requests")
    inside.get_by_label("Failures only").check()
    inside.get_by_label("Find in requests").fill("rate_limit q8_0")

    expect(inside.locator("tbody tr")).to_have_count(2)
    expect(inside.locator("tbody tr").first).to_contain_text("429")


def test_an_answer_is_text_whatever_it_is_written_in(inside, stub):
    """A model's script, image and link run nothing, load nothing and are no link."""
    stub.pieces = [HOSTILE[:30], HOSTILE[30:]]
    ask(inside)

    expect(state_of_answer(inside)).to_have_text("done")
    answer = inside.get_by_label("Answer").locator("pre, :scope").last
    assert answer.text_content() == HOSTILE
    assert answer.locator("*").count() == 0
    assert inside.evaluate("() => window.hit") is None


def test_names_and_errors_are_text_whatever_they_are_written_in(page, stub):
    """What clients and engines call themselves runs nothing in any view."""
    stub.overview["engines"][1] |= {"last_error": HOSTILE, "name": HOSTILE, "models": [HOSTILE]}
    stub.overview["aliases"][0]["name"] = HOSTILE
    stub.overview["models"][0] = HOSTILE
    stub.keys[1] |= {"name": HOSTILE, "models": [HOSTILE]}
    stub.requests[0] |= {"model": HOSTILE, "failure": HOSTILE, "key_name": HOSTILE}
    sign_in(page)
    for view in VIEWS:
        go_to(page, view)
        assert HOSTILE in page.locator("main").text_content()
        assert page.locator("main :is(script, img, a, b b)").count() == 0

    assert page.evaluate("() => window.hit") is None


def test_the_playground_asks_as_it_is_told_and_times_its_answer(inside, stub):
    """Model, temperature and length go with the question; the answer's own figures are shown."""
    go_to(inside, "Playground")
    inside.get_by_label("Model").select_option("gemma3:270m")
    inside.get_by_label("Temperature").fill("0")
    inside.get_by_label("Max tokens").fill("64")
    inside.get_by_label("Prompt").fill("why?")
    inside.get_by_label("Prompt").press("Control+Enter")

    expect(state_of_answer(inside)).to_have_text("done")
    expect(inside.get_by_label("Answer").last).to_have_text("".join(stub.pieces))
    assert re.search(
        r"TTFT[\d.]+ (ms|s|µs)Output tokens12Tokens/s", inside.locator(".inline").text_content()
    )
    asked = {name: stub.questions[0][name] for name in ("model", "temperature", "max_tokens")}
    assert asked == {"model": "gemma3:270m", "temperature": 0, "max_tokens": 64}


@pytest.mark.parametrize("leave", ["Stop", "Overview"])
def test_stopping_or_leaving_ends_the_answer_at_the_gateway(inside, stub, leave):
    """The connection is closed, so that the engine can stop; what came so far stays."""
    stub.held = True
    ask(inside)
    answer = inside.get_by_label("Answer").last
    expect(answer).to_have_text(stub.pieces[0].strip())
    if leave == "Stop":
        inside.get_by_role("button", name="Stop").click()
        expect(state_of_answer(inside)).to_have_text("stopped")
        expect(answer).to_have_text(stub.pieces[0].strip())
        no_rate = inside.locator(".inline .none").last
        expect(no_rate).to_have_attribute("title", "the engine sent no count of its tokens")
    else:
        go_to(inside, leave)

    assert stub.left.wait(LIMIT_S)


def test_a_new_keys_secret_is_shown_once(inside, stub):
    """It can be copied, Escape does not lose it, and afterwards it is nowhere."""
    inside.context.grant_permissions(["clipboard-read", "clipboard-write"])
    go_to(inside, "Keys")
    inside.get_by_role("button", name="New key").click()
    inside.get_by_label("Name").fill("night build")
    inside.get_by_label("Requests a minute").fill("30")
    inside.get_by_role("button", name="Create key").click()

    secret = inside.get_by_role("dialog").get_by_label("Key")
    expect(secret).to_have_value(SECRET)
    inside.keyboard.press("Escape")
    expect(secret).to_be_visible()
    inside.get_by_role("button", name="Copy").click()
    expect(inside.get_by_role("dialog").get_by_role("status")).to_have_text("Copied.")
    assert inside.evaluate("() => navigator.clipboard.readText()") == SECRET
    inside.get_by_role("button", name="I have kept it").click()
    expect(inside.get_by_role("row", name="night build")).to_be_visible()
    assert SECRET not in inside.content()
    assert stub.made[0]["limits"]["requests_per_minute"] == 30
    assert stub.made[0]["scopes"] == ["inference"]


def test_a_key_that_makes_no_sense_is_not_asked_for(inside, stub):
    """Each wrong field is named, and the first one has the focus."""
    go_to(inside, "Keys")
    inside.get_by_role("button", name="New key").click()
    inside.get_by_label("Requests at once").fill("-2")
    inside.get_by_role("button", name="Create key").click()

    expect(inside.get_by_role("dialog").get_by_role("alert")).to_contain_text("Give the key a name")
    expect(inside.get_by_label("Name")).to_be_focused()
    expect(inside.get_by_label("Requests at once")).to_have_attribute("aria-invalid", "true")
    assert stub.made == []


def test_a_key_is_revoked_only_when_confirmed(inside, stub):
    """Cancel has the focus and changes nothing."""
    go_to(inside, "Keys")
    for button in ("Cancel", "Revoke"):
        assert stub.asked["POST revoke"] == 0
        inside.get_by_role("button", name="Revoke chat team").click()
        expect(inside.get_by_role("dialog")).to_contain_text("chat team")
        expect(inside.get_by_role("button", name="Cancel")).to_be_focused()
        inside.get_by_role("dialog").get_by_role("button", name=button).click()
        expect(inside.get_by_role("dialog")).to_have_count(0)

    expect(inside.get_by_role("row", name="chat team")).to_contain_text("revoked")
    assert stub.asked["POST revoke"] == 1


def test_a_key_sees_only_the_views_of_its_scopes(page, stub):
    """Keys are for admins, the playground for those who may ask a model."""
    stub.scopes = ["dashboard"]
    sign_in(page)

    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(list(VIEWS[:3]))
    page.evaluate("() => { location.hash = '#keys'; }")
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_attached()
    assert stub.asked["GET keys"] == 0


def test_everything_is_reached_by_tab_with_a_name_and_a_ring(page):
    """From the skip link to the last control of each view, and in by the keyboard alone."""
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.locator(".figures")).to_be_visible()
    page.evaluate("() => document.activeElement.blur()")
    for view in VIEWS:
        go_to(page, view)
        page.reload()
        expect(page.get_by_role("heading", level=1, name=view)).to_be_attached()
        expect(page.get_by_text("Asking the gateway…")).to_have_count(0)
        page.keyboard.press("Tab")
        stops = [page.evaluate(FOCUSED)]
        while stops[-1]["tag"] != "BODY" and len(stops) < 60:
            page.keyboard.press("Tab")
            stops.append(page.evaluate(FOCUSED))

        assert stops[0]["name"] == "Skip to the content"
        assert stops.pop()["tag"] == "BODY"
        assert len(stops) >= len(VIEWS) + 4
        assert [stop for stop in stops if not (stop["name"] and stop["ring"])] == []


def test_the_skip_link_leads_to_the_content_of_the_same_view(inside):
    """It does not lead away from the view that the address names."""
    go_to(inside, "Engines")
    inside.evaluate("() => document.activeElement.blur()")
    inside.get_by_role("link", name="Skip").focus()
    inside.keyboard.press("Enter")

    expect(inside.locator("main")).to_be_focused()
    expect(inside.get_by_role("heading", level=1, name="Engines")).to_be_attached()


def test_a_dialog_keeps_the_focus_and_gives_it_back(inside):
    """Tab goes round inside, both ways; Escape closes it."""
    go_to(inside, "Keys")
    opener = inside.get_by_role("button", name="New key")
    opener.focus()
    inside.keyboard.press("Enter")
    expect(inside.get_by_label("Name")).to_be_focused()
    controls = inside.get_by_role("dialog").locator("button, input, select").count()
    for key in ("Tab", "Shift+Tab"):
        for _ in range(controls):
            inside.keyboard.press(key)
            assert inside.evaluate(FOCUSED)["inDialog"]
        expect(inside.get_by_label("Name")).to_be_focused()
    inside.keyboard.press("Escape")

    expect(inside.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()


@pytest.mark.parametrize("width", [320, 360, 820, 1280])
def test_no_view_is_wider_than_the_screen(inside, width):
    """On a phone nothing is to be scrolled sideways but boxes of their own."""
    inside.set_viewport_size({"width": width, "height": 740})
    for view in VIEWS:
        go_to(inside, view)
        assert inside.evaluate("() => document.documentElement.scrollWidth") <= width
        if view == "Keys":
            inside.get_by_role("button", name="New key").click()
            box = inside.get_by_role("dialog").bounding_box()
            assert 0 <= box["x"]
            assert box["x"] + box["width"] <= width
            inside.keyboard.press("Escape")


def test_a_cards_lines_carry_their_columns_title(inside):
    """On a phone a row is a card, and its numbers still say what they are."""
    inside.set_viewport_size({"width": 360, "height": 740})
    go_to(inside, "Engines")

    cell = inside.get_by_role("row", name="ollama-a").get_by_role("cell").nth(3)
    title = cell.evaluate("at => getComputedStyle(at, '::before').content")
    assert title == '"Active of slots"'


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(inside, scheme):
    """At least 4.5 to 1 in every view, light and dark."""
    inside.emulate_media(color_scheme=scheme)
    for view in VIEWS:
        go_to(inside, view)
        assert inside.evaluate(CONTRASTS) == []


def test_the_theme_is_the_systems_until_the_reader_chooses(inside):
    """The choice is kept across a reload, and can be taken back."""
    ground = "() => getComputedStyle(document.documentElement).backgroundColor"
    light = inside.evaluate(ground)
    inside.emulate_media(color_scheme="dark")
    dark = inside.evaluate(ground)
    inside.emulate_media(color_scheme="light")
    for _ in range(2):
        inside.get_by_role("button", name="Theme").click()
    inside.reload()

    expect(inside.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert light != dark
    assert inside.evaluate(ground) == dark
    inside.get_by_role("button", name="Theme").click()
    assert inside.evaluate(ground) == light


def test_a_lost_connection_is_said_and_mends_itself(inside, stub):
    """What was known stays; the line goes when the gateway is back, with what is new."""
    connection = inside.get_by_role("status").filter(has_text="Connection lost, trying again")
    stub.failing = True
    expect(connection).to_be_visible()
    expect(inside.locator(".figures")).to_contain_text("18,342")
    stub.overview["figures"]["requests_total"] = 20_000
    stub.failing = False

    expect(connection).to_have_count(0)
    expect(inside.locator(".figures")).to_contain_text("20,000")


def test_an_ended_session_leads_back_to_the_sign_in(inside, stub):
    """The reader is told why, and enters again."""
    stub.sessions.clear()

    expect(inside.get_by_role("alert")).to_have_text("The session is over. Sign in again.")
    sign_in(inside)


def test_a_hidden_page_asks_nothing_until_it_is_seen(browser, stub):
    """Ten minutes in the background cost the gateway no request."""
    show = """(state) => {
      Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with serving(stub) as origin:
        page = browser.open_page(origin, limit_s=LIMIT_S)
        page.clock.install()
        page.goto(f"{origin}/dashboard/")
        sign_in(page)
        page.evaluate(show, "hidden")
        before = stub.asked["GET overview"]
        page.clock.run_for(600_000)
        assert stub.asked["GET overview"] == before

        stub.overview["figures"]["requests_total"] = 20_000
        page.evaluate(show, "visible")
        expect(page.locator(".figures")).to_contain_text("20,000")
        page.context.close()


def test_paused_updates_stand_still(inside, stub):
    """A reader can hold the page, and let it go on."""
    pause = inside.get_by_role("button", name="pause updates")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    asked = stub.asked["GET overview"]
    stub.overview["figures"]["requests_total"] = 20_000
    go_to(inside, "Engines")
    go_to(inside, "Overview")
    expect(inside.locator(".figures")).to_contain_text("18,342")
    assert stub.asked["GET overview"] <= asked + 1  # one may have been on its way
    pause.click()

    expect(inside.locator(".figures")).to_contain_text("20,000")
