"""results/report.html: made from the CSV files alone, and usable in a real browser."""

import json
import re
import shlex
import shutil
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
import yaml

from scripts.aggregate import main as aggregate
from scripts.make_figures import main as make_figures
from scripts.make_tables import main as make_tables
from scripts.records.record import digest, identity
from scripts.report import main as report
from scripts.reporting.collect import load
from scripts.reporting.report import TEMPLATES
from scripts.reporting.sources import commands, runs_behind, runs_of_row
from scripts.reporting.studies import studies
from scripts.reporting.style import OTHERS, STYLES, on_dark
from scripts.reporting.tables import tables
from scripts.reporting.tuned import tuned
from scripts.running.plan import plan
from tests.conftest import REPOSITORY
from tests.made_up import EXACT, gains, results, runs
from tests.test_frozen import composed

RESULTS = REPOSITORY / "results"
REPORT = RESULTS / "report.html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def made_from(folder):
    """The report of the CSV files and benchmarks of the committed results, without a record."""
    copied = folder / "results"
    copied.mkdir()
    for path in RESULTS.glob("*.csv"):
        shutil.copy(path, copied)
    shutil.copytree(RESULTS / "benchmarks", copied / "benchmarks")
    with chdir(folder):  # the page's commands name a folder other than results
        assert report([]) == 0
    return (copied / "report.html").read_bytes()


@pytest.mark.slow
def test_the_committed_report_comes_from_the_committed_csv_files(tmp_path):
    assert made_from(tmp_path) == REPORT.read_bytes(), "run make report"


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


def test_every_word_of_the_glossary_is_on_the_page():
    page = re.sub(r"<(script|style|dl|aside).*?</\1>", "", REPORT.read_text(), flags=re.S).lower()
    for word in yaml.safe_load((TEMPLATES / "terms.yaml").read_text()):
        for part in word.removesuffix(", as an experiment").split(", "):
            assert part.lower() in page, part


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
    assert "Simba is 100% above Lion (two seeds: too few for a significance test)" in words
    assert "commit c0ffee" in words


def test_a_study_of_ones_own_has_a_report(tmp_path):
    """No study that the words know: its curves and tables are shown."""
    made_up = results(
        runs(EXACT, experiment="mine", dataset="NA", state_bytes_per_param=4.0, commit="")
    )
    for name, frame in made_up._asdict().items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    assert report([f"results.root={tmp_path}"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert 'id="mine-sasrec-na-curves-figure"' in page
    assert page.count("Results: mine: sasrec on NA") == 1


def test_studies_whose_names_look_alike_have_their_own_ids(tmp_path):
    names = ("x y", "x-y", "數據一", "數據二")
    made_up = results(*(runs(EXACT, "mine", dataset=name, commit="") for name in names))
    for name, frame in made_up._asdict().items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    assert report([f"results.root={tmp_path}"]) == 0
    ids = re.findall(r' id="(.+?)"', (tmp_path / "report.html").read_text())
    assert len(ids) == len(set(ids))


def test_the_committed_report_draws_every_study_that_no_table_replaces():
    shown = set(re.findall(r'id="([\w-]+?)-[a-z]+-figure"', REPORT.read_text()))
    for study in studies(load(RESULTS)):
        if not study.declared.shown_elsewhere:
            assert study.name in shown, study.name


def test_a_folder_without_csv_files_is_one_line(tmp_path, capsys):
    assert report([f"results.root={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_benchmarks_are_one_line_that_names_the_file(tmp_path, capsys):
    (tmp_path / "benchmarks").mkdir()
    for name, frame in results(runs(EXACT, commit=""))._asdict().items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "benchmarks" / "optim.json").write_text("{")
    assert report([f"results.root={tmp_path}"]) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: {tmp_path / 'benchmarks' / 'optim.json'}: damaged (")
    assert output.count("\n") == 1


@pytest.mark.parametrize("colour", sorted({style.colour for style in STYLES.values()}))
def test_colours_can_be_seen_on_a_dark_page(colour):
    assert contrast(on_dark(colour), "#16181C") >= 3


@pytest.mark.parametrize("colour", sorted({style.colour for style in STYLES.values()} | {*OTHERS}))
def test_colours_can_be_seen_on_a_light_page(colour):
    assert contrast(colour, "#FFFFFF") >= 3


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


@pytest.fixture(scope="module")
def made_up_page(tmp_path_factory):
    """A report of made-up studies with a block of every kind, much smaller than the committed."""
    folder = tmp_path_factory.mktemp("report")
    several = {o: [row, row] for o, (row,) in EXACT.items()} | {"adam": EXACT["lion"] * 2}
    finalist = {"lion_8bit": [tuple(0.9 * x for x in EXACT["lion"][0])] * 2}
    rates = [
        runs(EXACT, "lr", lr=lr, epochs=100, swept=f"lr {lr}", commit="c0ffee")
        for lr in (1e-4, 3e-4)
    ]
    lost = gains("lion_8bit", [0.1, -0.2], "finalists")
    frames = [runs(several, commit="c0ffee"), runs(finalist, "finalists", commit="c0ffee"), *rates]
    for name, frame in results(*frames, gains=lost)._asdict().items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    shutil.copytree(RESULTS / "benchmarks", folder / "benchmarks")
    assert report([f"results.root={folder}"]) == 0
    return folder / "report.html"


@contextmanager
def opened(browser, path, width=1280, scheme="light"):
    """A page in a window, without a network; it must not complain or ask for one."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, errors = context.new_page(), []
    page.set_default_timeout(120_000)
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    own = ("file:", "blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(own) else errors.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    assert not errors
    context.close()


@pytest.fixture(scope="module")
def page(browser, made_up_page):
    """The made-up report, opened once; a test leaves it as it was."""
    with opened(browser, made_up_page) as page:
        yield page


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
@pytest.mark.slow
def test_the_committed_report_fits_the_window_and_draws_its_figures(browser, width, scheme):
    with opened(browser, REPORT, width, scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        figures = page.locator("figure.block").count()
        assert figures > 10
        assert page.locator("figure.block .plot .main-svg").count() >= figures


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_axe_finds_no_serious_fault(page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
    drawing = {"exclude": [[".plot .plot-container"]]}  # an image for a reader of the screen
    found = axe.run(page, context=drawing).response["violations"]
    page.emulate_media(color_scheme="light")
    serious = {
        v["id"]: v["nodes"][0]["html"] for v in found if v["impact"] in ("serious", "critical")
    }
    assert not serious


def test_a_table_sorts_by_its_numbers_and_filters(page):
    table = page.locator("#headline table")
    head = table.locator("thead th")
    column = [th.inner_text().strip() for th in head.all()].index("Loss ours")
    head.nth(column).get_by_role("button").press("Space")
    page.wait_for_selector("#headline th[aria-sort=ascending]")
    cells = [td.inner_text() for td in table.locator(f"tbody tr td:nth-child({column + 1})").all()]
    numbers = [float(cell.split()[0]) for cell in cells]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 3
    whole = table.locator("tbody tr").count()
    count = "n => document.querySelectorAll('#headline tbody tr').length === n"
    page.locator("#headline input").fill("(c =")
    page.wait_for_function(count, arg=1)
    page.locator("#headline input").fill("")
    page.wait_for_function(count, arg=whole)


def test_a_number_leads_to_the_records_behind_its_row(page):
    row = page.locator("#headline tbody tr", has_text="Simba + m")
    row.locator("td").nth(1).click()
    records = page.locator("#headline .popover:popover-open")
    assert [link.inner_text() for link in records.locator("a").all()] == [
        f"Simba + m, ablation, beauty, seed {seed}" for seed in (0, 1)
    ]
    assert "simba_m" in records.locator("a").first.get_attribute("href")
    page.keyboard.press("Escape")
    row.get_by_role("button").press("Enter")  # and so does the button, for who has no mouse
    assert records.is_visible()
    page.keyboard.press("Escape")
    assert page.locator(".popover:popover-open").count() == 0


def test_buttons_hide_lines_and_turn_the_axis_by_keyboard(page):
    figure = page.locator("#ablation-sasrec-beauty-curves-figure")
    plot = figure.locator(".plot")
    shown = "element => element.data.filter(t => t.legendgroup === 'Simba').map(t => t.visible)"
    named = "element => element.layout.annotations.find(a => a.name === 'Simba').opacity"
    places = "element => element.layout.annotations.map(a => a.y)"
    before = plot.evaluate(places)
    button = figure.get_by_role("button", name="Simba", exact=True)
    for state in (False, True):
        button.press("Enter")
        assert set(plot.evaluate(shown)) == {state}
        assert plot.evaluate(named) == int(state)
        assert button.get_attribute("aria-pressed") == str(state).lower()
    loss = figure.get_by_role("button", name="logarithmic loss")
    loss.press("Space")
    assert plot.evaluate("element => element.layout.yaxis.type") == "linear"
    loss.press("Space")
    assert plot.evaluate("element => element.layout.yaxis.type") == "log"
    for kind in ("linear", "log"):  # the line is hidden, then shown again
        button.press("Space")
        loss.press("Space")
        assert plot.evaluate("element => element.layout.yaxis.type") == kind
    assert plot.evaluate(places) == pytest.approx(before)


def test_a_print_shows_folded_sections(page):
    folded = "document.querySelectorAll('details.more:not([open])').length"
    page.evaluate("document.querySelectorAll('details.more').forEach(d => (d.open = false))")
    assert page.evaluate(folded) > 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(folded) == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) > 0


def test_a_word_tells_what_it_means(page):
    page.get_by_role("button", name="NDCG@10", exact=True).first.press("Enter")
    assert page.locator("#term-ndcg-10").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#term-ndcg-10").is_visible()


def test_figures_follow_the_scheme(page):
    line = "#ablation-sasrec-beauty-curves-figure .plot').data.some(t => t.line?.color === "
    for scheme, colour in (("dark", "#FFFFFF"), ("light", "#000000")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.querySelector('{line}'{colour}')")


@pytest.mark.parametrize(
    "records",
    [
        ["beauty/lion/ablation-*seed0"],
        ["beauty/sign_sgd/ablation-*seed0", "beauty/ternary_lion_ef/finalists-*seed0"],
        ["beauty/*/one_byte-*"],
        ["beauty/ternary_lion_byte_balanced/lasting-*seed0"],
        ["beauty/lion/short-*"],
        ["ml-100k/lion/clipping-*"],
    ],
)
def test_a_part_of_a_study_has_tables_figures_and_a_report(tmp_path, records):
    for pattern in records:
        for path in (RESULTS / "runs").glob(f"{pattern}.json"):
            copied = tmp_path / path.relative_to(RESULTS)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)
    for command in (aggregate, make_tables, make_figures, report):
        assert command([f"results.root={tmp_path}"]) == 0


@pytest.mark.slow
def test_the_commands_behind_a_table_train_its_runs_and_no_other():
    """Every run of every command composes to the config of a record, each record once."""
    runs_csv = load(RESULTS).runs
    records = [json.loads((RESULTS / name).read_text()) for name in runs_csv["record"]]
    expected = {(r["config_hash"], r["seed"], r["experiment"]) for r in records}
    found = []
    for command in commands(runs_csv):
        start, _, rest = command.partition(" -m scripts.train -m ")
        assert start.startswith("torchrun") == ("experiment=workers" in rest)
        for overrides in plan(shlex.split(rest)).runs:
            words = [word for word in overrides if not word.startswith("results.root=")]
            config = composed(shlex.join(["scripts.train", *words]))
            (experiment,) = (w.partition("=")[2] for w in words if w.startswith("experiment="))
            identifying = identity(config, config["data"]["sha256"])
            found.append((digest(identifying), config["seed"], experiment))
    assert sorted(found) == sorted(expected)


def test_the_records_of_the_tuned_are_the_runs_that_it_shows():
    made = studies(load(RESULTS))
    table = tuned(made)
    behind = runs_behind(made, "tuned", table)
    for _, row in table.frame.iterrows():
        found = runs_of_row(behind, row)
        assert row["NDCG@10"] in {f"{value:.4f}" for value in found["test/NDCG@10"]}, row


def test_every_row_of_corrupted_gradients_leads_to_its_records():
    name = "robustness-sasrec-ml-100k"
    (made,) = (study for study in studies(load(RESULTS)) if study.name == name)
    lines = tables([made])[f"{name}/corrupted_ndcg"].frame
    found = [
        record for _, row in lines.iterrows() for record in runs_of_row(made.runs, row)["record"]
    ]
    assert sorted(found) == sorted(made.runs["record"])
