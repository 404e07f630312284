"""results/report.html: made from the CSV files alone, and usable in a real browser."""

import re
import shutil
from pathlib import Path

import pytest

from scripts.report import main as report
from scripts.reporting.style import STYLES, on_dark
from tests.conftest import REPOSITORY
from tests.made_up import EXACT, results, runs

RESULTS = REPOSITORY / "results"
REPORT = RESULTS / "report.html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def made_from(folder, source=RESULTS):
    """The report of a folder that holds the CSV files and benchmarks of another, no record."""
    for path in source.glob("*.csv"):
        shutil.copy(path, folder)
    shutil.copytree(source / "benchmarks", folder / "benchmarks")
    assert report([f"results.root={folder}"]) == 0
    return (folder / "report.html").read_bytes()


def test_the_committed_report_comes_from_the_committed_csv_files(tmp_path):
    made = made_from(tmp_path)
    assert made == REPORT.read_bytes(), "run make report"
    assert report([f"results.root={tmp_path}"]) == 0
    assert made == (tmp_path / "report.html").read_bytes()


def test_every_link_leads_somewhere():
    page = REPORT.read_text()
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    ids = re.findall(r' id="(.+?)"', page)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'href="(.+?)"', page))
    assert sum(link.startswith("runs/") for link in links) > 100
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        elif not link.startswith(("https://", "data:")):
            assert (RESULTS / link).is_file(), link
    assert set(re.findall(r'popovertarget="(.+?)"', page)) <= set(ids)


def test_every_record_of_the_note_is_behind_its_table():
    page = REPORT.read_text()
    table = page.split('id="headline"')[1].split("</section>")[0]
    for path in (RESULTS / "runs/beauty").glob("*/ablation-sasrec-seed*.json"):
        assert f'href="{path.relative_to(RESULTS)}"' in table, path


def test_words_follow_the_figures(tmp_path):
    """Another study, whose Simba is better than Lion and has few seeds."""
    better = EXACT | {"simba": [(0.08, 0.0762, 0.1)] * 2, "lion": EXACT["lion"] * 2}
    made_up = results(runs(better, state_bytes_per_param=4.0, commit="c0ffee"))
    for name, frame in made_up._asdict().items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    assert report([f"results.root={tmp_path}"]) == 0
    words = " ".join((tmp_path / "report.html").read_text().split())
    assert "Simba is 100% above Lion (two seeds: too few to tell it from luck)" in words
    assert "commit c0ffee" in words


def test_a_study_of_ones_own_has_a_report(tmp_path):
    """No study that the words know: its tables are listed."""
    made_up = results(
        runs(EXACT, experiment="mine", dataset="NA", state_bytes_per_param=4.0, commit="")
    )
    for name, frame in made_up._asdict().items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    assert report([f"results.root={tmp_path}"]) == 0
    assert "mine-sasrec-NA: rows" in (tmp_path / "report.html").read_text()


def test_a_folder_without_csv_files_is_one_line(tmp_path, capsys):
    assert report([f"results.root={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_benchmarks_are_one_line_that_names_the_file(tmp_path, capsys):
    (tmp_path / "benchmarks").mkdir()
    for path in RESULTS.glob("*.csv"):
        shutil.copy(path, tmp_path)
    (tmp_path / "benchmarks" / "optim.json").write_text("{")
    assert report([f"results.root={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'benchmarks' / 'optim.json'}: damaged (")
    assert told.count("\n") == 1


@pytest.mark.parametrize("colour", sorted({style.colour for style in STYLES.values()}))
def test_colours_can_be_seen_on_a_dark_page(colour):
    assert contrast(on_dark(colour), "#16181C") >= 3


def contrast(a, b):
    """WCAG's contrast of two colours."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        if not own.is_file() and CHROMIUM is None:
            pytest.skip("no Chromium: `playwright install chromium` or your system's package")
        path = None if own.is_file() else CHROMIUM
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, request):
    """The committed report in a window, and what it complained of or asked the network for."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, faults = context.new_page(), []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = ("file:", "blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url))
    page.goto(REPORT.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    yield page
    assert not faults
    context.close()


@pytest.mark.parametrize(
    "opened", [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], indirect=True
)
def test_it_fits_the_window_and_axe_finds_no_serious_fault(opened):
    for details in opened.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.locator(".plot .main-svg").count() > 10
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(opened).response["violations"]
    serious = {
        v["id"]: v["nodes"][0]["html"] for v in found if v["impact"] in ("serious", "critical")
    }
    assert not serious


def test_a_table_sorts_by_its_numbers_and_filters(opened):
    table = opened.locator("#search table")
    opened.locator("details.more > summary").first.click()
    column = [th.inner_text().strip() for th in table.locator("thead th").all()].index("sign-SGD")
    table.locator("thead th").nth(column).click()
    cells = [td.inner_text() for td in table.locator(f"tbody tr td:nth-child({column + 1})").all()]
    numbers = [float(cell) for cell in cells if cell != "–"]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 3
    whole = table.locator("tbody tr").count()
    opened.locator("#search input").fill("decay_04")
    assert 0 < table.locator("tbody tr").count() < whole


def test_buttons_hide_lines_and_turn_the_axis_by_keyboard(opened):
    figure = opened.locator("#ablation-sasrec-beauty-curves-figure")
    shown = "element => element.data.filter(t => t.legendgroup === 'Simba').map(t => t.visible)"
    plot = figure.locator(".plot")
    button = figure.get_by_role("button", name="Simba", exact=True)
    button.press("Enter")
    assert set(plot.evaluate(shown)) == {False}
    assert button.get_attribute("aria-pressed") == "false"
    button.press("Enter")
    assert set(plot.evaluate(shown)) == {True}
    figure.get_by_role("button", name="logarithmic loss").press("Space")
    assert plot.evaluate("element => element.layout.yaxis.type") == "linear"


def test_a_word_tells_what_it_means(opened):
    opened.get_by_role("button", name="NDCG@10", exact=True).first.press("Enter")
    assert opened.locator("#term-ndcg-10").is_visible()
    opened.keyboard.press("Escape")
    assert not opened.locator("#term-ndcg-10").is_visible()


def test_figures_follow_the_scheme(opened):
    lion = "element => element.data.find(t => t.name === 'Lion' && t.line?.color).line.color"
    plot = opened.locator("#ablation-sasrec-beauty-curves-figure .plot")
    assert plot.evaluate(lion) == "#000000"
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(
        "document.querySelector('#ablation-sasrec-beauty-curves-figure .plot')"
        ".data.some(t => t.line?.color === '#FFFFFF')"
    )
