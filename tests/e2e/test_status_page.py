"""The status page in a real Chromium, over a gateway process with an identity in each state."""

import copy
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from proxy.admin.page import pieces, read
from tests.support.browser import DESKTOP, PHONE, accessibility, chromium, need_chromium, opened, stranger
from tests.support.gateway import until
from tests.support.status_scene import HOSTILE, STATES, StatusScene, status_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    need_chromium()
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StatusScene]:
    need_chromium()
    async with status_scene(tmp_path_factory.mktemp("status")) as scene:
        yield scene


WORDS = {
    "crm": "fresh: serving",
    "billing": "stale: serving, but it cannot be renewed",
    "legacy": "suspended: login refused; no usable token",
    "archive": "expired: no usable token",
}


async def tells_the_facts(page: Page) -> None:
    """Everything an operator needs is there to be read, and a provider's words are words."""
    await expect(page).to_have_title("2 problems, 2 warnings · opentv-auth-proxy")
    await expect(page.get_by_role("heading", level=2).first).to_have_text("2 problems, 2 warnings")
    for name, words in WORDS.items():
        card = page.get_by_role("article", name=name)
        await expect(card.locator(".state")).to_have_text(words)
        await expect(card.locator(".state svg")).to_be_visible()
        await expect(card.get_by_role("img", name=re.compile("life", re.IGNORECASE))).to_have_count(
            0 if name == "legacy" else 1
        )
    suspended = page.get_by_role("article", name="legacy").locator("dl > div").first
    await expect(suspended).to_have_text(re.compile(r"^Login suspended until\s*in .* \d\d:\d\d:\d\d$"))
    refused = page.get_by_role("article", name="legacy").get_by_role("listitem").first
    await expect(refused).to_contain_text(
        re.compile(r"^invalid_credentials login \(startup\).*Invalid user credentials")
    )
    await expect(page.get_by_role("article", name="billing").get_by_role("listitem").first).to_contain_text(HOSTILE)
    verdict = page.get_by_role("region", name="2 problems, 2 warnings").get_by_role("listitem")
    assert [words.split(".")[0] for words in await verdict.all_inner_texts()] == [
        "legacy: login suspended, no usable token",
        "archive: no usable token",
        "billing: the token cannot be renewed",
        "configuration: routes",
    ]
    root = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="signed as crm"))
    assert [" ".join(cell.split()) for cell in (await root.get_by_role("cell").all_inner_texts())[1:4]] == [
        "0",
        "0",
        "0",
    ]
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_each_state_is_told_in_words_to_everybody(
    browser: Browser, scene: StatusScene, size: tuple[int, int], *, dark: bool
) -> None:
    """On any screen, in any light, to a screen reader; nothing moves, and the browser has nothing to object to."""
    async with opened(browser, scene.url, size, dark=dark) as page:
        await tells_the_facts(page)
        await page.locator("summary").evaluate_all("all => all.forEach(one => one.click())")
        assert await accessibility(page) == []
        assert await page.evaluate("document.getAnimations().length") == 0


async def test_without_script_the_facts_are_there_and_a_refresh_works(browser: Browser, scene: StatusScene) -> None:
    before = scene.well.state.counters["refreshes"]
    async with opened(browser, scene.url, PHONE, script=False) as page:
        await tells_the_facts(page)
        await expect(page.get_by_text("Reload the page for newer facts.")).to_be_visible()
        await expect(page.get_by_role("button", name="Pause updates")).to_be_hidden()
        static = await page.content()
        summary = page.get_by_role("article", name="crm").locator("summary", has_text="Refresh now…")
        button = page.get_by_role("button", name="Yes, refresh crm")
        await expect(button).to_be_hidden()
        await summary.press("Enter")
        await button.press("Enter")
        await expect(page.get_by_role("heading")).to_have_text("Refreshed")
        await expect(page.locator("#result")).to_have_text("crm has a new token.")
        outcome = await page.content()
        await page.get_by_role("link", name="Back to the status page").click()
        await expect(page.get_by_role("article", name="crm").get_by_role("listitem").first).to_contain_text(
            "success refresh (manual)"
        )
    assert scene.well.state.counters["refreshes"] == before + 1
    async with stranger(browser, PHONE) as page:  # axe is a script itself
        for shown in (static, outcome):
            await page.set_content(re.sub("<script>.*?</script>", "", shown, flags=re.DOTALL))
            assert await accessibility(page) == []


async def test_by_keyboard_a_token_is_refreshed_and_the_page_follows_without_moving_the_focus(
    browser: Browser, scene: StatusScene
) -> None:
    """Two steps: to open it, to confirm. Then the provider fails again, and the page tells that by itself."""
    async with opened(browser, scene.url) as page:
        await page.evaluate("window.untouched = true")
        card = page.get_by_role("article", name="billing")
        scene.lame.state.clear_faults()
        await card.locator("summary", has_text="Refresh now…").focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        button = page.get_by_role("button", name="Yes, refresh billing")
        await expect(button).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(card.get_by_role("status")).to_have_text("billing has a new token.")
        await expect(card.locator("ol > li").filter(has_text="(manual)")).to_have_count(1)
        await scene.spoil()
        await expect(card.locator(".state")).to_have_text(WORDS["billing"])
        await expect(page).to_have_title("2 problems, 2 warnings · opentv-auth-proxy")
        await expect(button).to_be_focused()
        await expect(card.get_by_role("status")).to_have_text("billing has a new token.")
        assert await page.evaluate("window.untouched")


async def test_whatever_comes_or_goes_the_page_keeps_what_somebody_is_about_to_press(
    browser: Browser, scene: StatusScene
) -> None:
    """Between opening and confirming the history grows a fold, problems and an identity come, and all of it goes again.
    A button that moved, or that means another identity under the same finger, would be worse than old facts."""
    calm = await scene.status()
    billing = calm["identities"]["billing"]
    first = billing["history"][-1]
    calm["identities"] = {"billing": billing | {"state": "fresh", "consecutive_failures": 0, "history": [first]}}
    calm["routes"], calm["warnings"] = [], []
    busy = copy.deepcopy(calm)
    failed = first | {"result": "timeout", "detail": "no answer within 10 s"}
    busy["identities"]["billing"] |= {"consecutive_failures": 4, "history": [failed] * 4 + [first]}
    busy["identities"] = {"another": busy["identities"]["billing"] | {"usable": False}} | busy["identities"]
    shown = calm

    async def facts(route: Route) -> None:
        await route.fulfill(content_type="text/html; charset=utf-8", body="".join(pieces(read(shown))))

    waiting: list[Route] = []
    async with opened(browser, scene.url) as page:
        await page.route(scene.url, facts)
        await page.route("**/identities/billing/refresh", lambda route: waiting.append(route))  # noqa: PLW0108 -- it marks what it is given
        await page.reload()
        card = page.get_by_role("article", name="billing")
        await card.locator("summary", has_text="Refresh now…").press("Enter")
        button = page.get_by_role("button", name="Yes, refresh billing")
        await button.focus()
        await page.evaluate("window.held = document.activeElement")

        async def told(document: Any, attempts: int) -> None:
            nonlocal shown
            shown = document
            await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            await expect(card.locator("ol > li")).to_have_count(attempts)
            await expect(page.get_by_role("article")).to_have_count(len(document["identities"]))
            assert await page.evaluate("document.activeElement === window.held")
            await expect(button).to_be_focused()

        await told(busy, 5)
        await expect(page.get_by_role("group").filter(has_text="before these")).to_have_count(2)
        await page.keyboard.press("Enter")
        await expect(card.get_by_role("status")).to_have_text("Refreshing…")
        await told(calm, 1)
        await told(busy, 5)
        await expect(card.get_by_role("status")).to_have_text("Refreshing…")
        await waiting.pop().fulfill(content_type="text/html", body='<p id="result">billing has a new token.</p>')
        await expect(card.get_by_role("status")).to_have_text("billing has a new token.")
        await told(calm, 1)
        await expect(card.get_by_role("status")).to_have_text("billing has a new token.")
    assert waiting == []


async def test_a_refresh_that_fails_says_why(browser: Browser, scene: StatusScene) -> None:
    async with opened(browser, scene.url, PHONE, objections="status of 502") as page:
        card = page.get_by_role("article", name="archive")
        await card.locator("summary", has_text="Refresh now…").click()
        await page.get_by_role("button", name="Yes, refresh archive").click()
        words = "the connection to the token endpoint broke before its answer was complete"
        await expect(card.get_by_role("status")).to_have_text(words)


async def test_a_gateway_that_does_not_answer_is_told_of_and_the_page_recovers(
    browser: Browser, scene: StatusScene
) -> None:
    """Nothing is worse at night than a page that looks well because it is old."""
    async with opened(browser, scene.url, objections="ERR_INTERNET_DISCONNECTED") as page:
        alert = page.get_by_role("alert")
        await expect(alert).to_be_hidden()
        await page.context.set_offline(True)
        await expect(alert).to_have_text(re.compile(r"^No answer from the gateway since \d\d:\d\d:\d\d UTC\."))
        assert await accessibility(page) == []
        await page.context.set_offline(False)
        await expect(alert).to_be_hidden()


async def test_updates_can_be_paused(browser: Browser, scene: StatusScene) -> None:
    """WCAG 2.2.2: whatever changes by itself can be stopped."""
    asked: list[str] = []
    async with stranger(browser, DESKTOP) as page:
        await page.clock.install()
        await page.goto(scene.url)
        page.on("request", lambda request: asked.append(request.url))
        async with page.expect_response(scene.url):
            await page.clock.run_for(2000)
        await page.get_by_role("button", name="Pause updates").press("Enter")
        asked.clear()
        await page.clock.run_for(600_000)
        assert asked == []
        async with page.expect_response(scene.url):
            await page.get_by_role("button", name="Resume updates").press("Enter")


async def test_no_page_of_another_origin_can_refresh_or_frame_it(browser: Browser, scene: StatusScene) -> None:
    """Neither another site nor another port of the same one; by form, by script, or by a click that was lured."""
    port = urlsplit(scene.well.url).port
    before = scene.well.state.counters["refreshes"]
    target = f"{scene.gateway.admin_url}/identities/crm/refresh"
    for origin in (f"http://localhost:{port}", f"http://127.0.0.1:{port}"):
        async with stranger(browser, DESKTOP) as page:
            await page.goto(f"{origin}/_sandbox")
            async with page.expect_event("requestfailed", lambda request: request.url == target):
                await page.evaluate("url => void fetch(url, {method: 'POST', mode: 'no-cors'}).catch(() => 0)", target)
            async with page.expect_event("requestfailed", lambda request: request.url == scene.url):
                await page.set_content(f'<iframe src="{scene.url}"></iframe>')
            await page.set_content(f'<form method="post" action="{target}"><button>You won</button></form>')
            async with page.expect_navigation() as answer:
                await page.get_by_role("button").click()
            reply = await answer.value
            assert reply is not None
            assert reply.status == 403
            await expect(page.locator("#result")).to_have_text(re.compile("another (site|origin)"))
    assert scene.well.state.counters["refreshes"] == before


async def test_nothing_that_got_into_the_page_could_run(browser: Browser, scene: StatusScene) -> None:
    """The second wall behind the escaping: the policy."""
    async with opened(browser, scene.url, objections="Content Security Policy") as page:
        await page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.taken = true";
                document.body.append(script);
                const image = document.createElement("img");
                image.setAttribute("onerror", "window.taken = true");
                image.src = "data:,";
                document.body.append(image);
                return new Promise((done) => image.addEventListener("error", done));
            }"""
        )
        assert await page.evaluate("window.taken") is None


async def test_a_terminal_and_a_program_are_told_the_same(scene: StatusScene) -> None:
    """By the same process: curl's text, and the JSON with every field that was promised."""
    async with scene.http.get(scene.url) as answer:
        lines = (await answer.text()).splitlines()
    assert lines[0].endswith(": 2 problems, 2 warnings")
    assert [line.split()[:2] for line in lines if re.match("  (crm|billing|legacy|archive) ", line)] == [
        [name, f"{state},"] for name, state in STATES.items()
    ]
    asked = [await scene.ask(path) for path in ("/adm/v1/accounts/1", "/adm/v1/accounts/2", "/legacy")]
    assert asked == [200, 200, 503]
    document = await scene.status()
    assert {"version", "started_at", "identities", "routes", "store"} <= document.keys()
    promised = {"state", "fingerprint", "issued_at", "expires_at", "refresh_expires_at", "session_ends_at"}
    promised |= {"next_refresh_at", "last_refresh", "consecutive_failures", "suspended_until", "history"}
    assert all(promised <= identity.keys() for identity in document["identities"].values())
    lately = {route["path"]: (route["requests"], route["last_minute"]["requests"]) for route in document["routes"]}
    assert lately["/"][0] >= 42
    assert 2 <= lately["/"][1] <= lately["/"][0]
    assert lately["/billing"] == (0, 0)
    assert document["routes"][2]["server_errors"] >= document["routes"][2]["last_minute"]["server_errors"] >= 1
    assert {name: identity["usable"] for name, identity in document["identities"].items()} == {
        "crm": True,
        "billing": True,
        "legacy": False,
        "archive": False,
    }


async def test_a_refused_reload_is_on_the_page_until_it_is_mended(browser: Browser, scene: StatusScene) -> None:
    """Last, as it ends the suspension."""
    good = scene.gateway.config_file.read_text()
    async with opened(browser, scene.url) as page:
        scene.gateway.config_file.write_text(good.replace("admin:", "admni:"))
        scene.gateway.hup()
        refused = page.get_by_role("listitem").filter(has_text="the last reload was refused")
        await expect(refused).to_contain_text("admni")
        scene.gateway.config_file.write_text(good)
        scene.gateway.hup()
        await expect(refused).to_have_count(0)

    async def reloaded() -> bool:
        return (await scene.status())["config"]["reload_ok"] is True

    await until(reloaded, 5, "the mended file in force")
