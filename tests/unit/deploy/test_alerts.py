"""Every alert fires when it should, and stays silent when it should: promtool, on series made up for the purpose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
PROMTOOL = Path(sys.executable).parent / "promtool"


@dataclass(frozen=True)
class Case:
    """Series by minute, in promtool's notation, and what is told of them after so many minutes."""

    name: str
    series: dict[str, str]
    at: int
    fires: tuple[str, ...] = ()
    silent: tuple[str, ...] = field(default=())


def frames(code: str, a_minute: float, minutes: int = 90) -> dict[str, str]:
    return {
        f'upscale_frames_total{{job="gateway",instance="a",method="Upscale",variant="v",code="{code}"}}': (
            f"0+{a_minute:g}x{minutes}"
        )
    }


def budget(minutes: int = 90, **a_minute: float) -> dict[str, str]:
    outcomes = ("met", "late", "refused", "spent", "failed", "too_small", "void")
    return {
        f'upscale_budget_frames_total{{job="gateway",instance="a",variant="v",priority="live",outcome="{each}"}}': (
            f"0+{a_minute.get(each, 0):g}x{minutes}"
        )
        for each in outcomes
    }


def late_at_last(good: int, bad: int, good_again: int = 1, *, met: float, late: float) -> dict[str, str]:
    """Ten frames a second, all in time but for some minutes, in which so many were."""
    in_time, too_late = list(budget())[:2]
    before = 600 * good
    after = before + met * bad + 600
    return {
        in_time: f"0+600x{good} {before + met:g}+{met:g}x{bad - 1} {after:g}+600x{good_again}",
        too_late: f"0x{good} {late:g}+{late:g}x{bad - 1} {late * bad:g}x{good_again}",
    }


def shed(reason: str, a_minute: float, minutes: int = 90) -> dict[str, str]:
    return {
        f'upscale_shed_total{{job="gateway",instance="a",variant="v",reason="{reason}"}}': f"0+{a_minute:g}x{minutes}"
    }


def histogram(name: str, le: str, inside: float, count: float) -> dict[str, str]:
    labels = 'job="gateway",instance="a"'
    return {
        f'{name}_bucket{{{labels},le="{le}"}}': f"0+{inside:g}x90",
        f"{name}_count{{{labels}}}": f"0+{count:g}x90",
    }


def gauges(name: str, **by_label: str) -> dict[str, str]:
    """A gauge of the gateway a, or one for each value of a label: `instance__b="1x9"`."""
    made: dict[str, str] = {}
    for labelled, values in by_label.items():
        label, _, value = labelled.partition("__")
        instance = "" if label == "instance" else ',instance="a"'
        made[f'{name}{{job="gateway",{label}="{value}"{instance}}}'] = values
    return made


def up(job: str = "gateway", **instances: str) -> dict[str, str]:
    return {f'up{{job="{job}",instance="{name}"}}': values for name, values in instances.items()}


FAST, SLOW = "UpscaleBudgetBurnsFast", "UpscaleBudgetBurnsSlowly"
TRITON = ("UpscaleTritonAllDown", "UpscaleTritonDown", "UpscaleTritonLeftAlone", "UpscaleTritonNotScraped")
READY = ("UpscaleNotReady", "UpscaleWorkerDown")
UP = ("UpscaleGatewayAllDown", "UpscaleGatewayDown")

CASES = [
    Case("a fifth is late for an hour", budget(met=480, late=120), 65, fires=(FAST,)),
    Case("a fifth is refused for an hour", budget(met=480, refused=120), 65, fires=(FAST,)),
    Case("8 % fail for six hours", budget(400, met=552, failed=48), 390, fires=(FAST,)),
    Case("4 % run out of time for hours", budget(260, met=576, spent=24), 240, fires=(SLOW,), silent=(FAST,)),
    Case("2 % are late for longer", budget(460, met=588, late=12), 440, fires=(SLOW,), silent=(FAST,)),
    Case("2 % are late at the end of a good day", late_at_last(480, 30, met=588, late=12), 510, silent=(FAST, SLOW)),
    Case("half a per cent is late", budget(400, met=597, late=3), 390, silent=(FAST, SLOW)),
    Case("all are too small, or the client's doing", budget(too_small=600, void=300), 65, silent=(FAST, SLOW)),
    Case("a bad quarter of an hour is over", late_at_last(360, 15, 10, met=0, late=600), 385, silent=(FAST,)),
    Case("hardly anybody is there", budget(met=0, late=30), 65, silent=(FAST,)),
    Case(
        "a tenth fails",
        frames("OK", 540) | frames("UNAVAILABLE", 60),
        15,
        fires=("UpscaleFramesFail",),
        silent=("UpscaleFewFramesAnswered",),
    ),
    Case("a fiftieth fails", frames("OK", 588) | frames("INTERNAL", 12), 15, silent=("UpscaleFramesFail",)),
    Case(
        "the clients send nonsense",
        frames("OK", 60) | frames("INVALID_ARGUMENT", 540),
        15,
        silent=("UpscaleFramesFail", "UpscaleFewFramesAnswered"),
    ),
    Case(
        "most are refused",
        frames("OK", 120) | frames("RESOURCE_EXHAUSTED", 480) | shed("overloaded", 480),
        20,
        fires=("UpscaleFewFramesAnswered", "UpscaleRefuses"),
        silent=("UpscaleFramesFail",),
    ),
    Case(
        "none is answered, since the start",
        frames("RESOURCE_EXHAUSTED", 600),
        15,
        fires=("UpscaleFewFramesAnswered",),
    ),
    Case(
        "one client asks for more than it may have",
        frames("OK", 120) | frames("RESOURCE_EXHAUSTED", 480) | shed("client_limit", 480),
        20,
        silent=("UpscaleFewFramesAnswered", "UpscaleRefuses"),
    ),
    Case("few are refused", frames("OK", 588) | frames("RESOURCE_EXHAUSTED", 12) | shed("overloaded", 12), 20,
         silent=("UpscaleRefuses", "UpscaleFewFramesAnswered")),
    Case(
        "the frames stop",
        {next(iter(frames("OK", 0))): "0+600x60 36000+0x60"},
        80,
        fires=("UpscaleNoTraffic",),
    ),
    Case("there never were any", {next(iter(frames("OK", 0))): "0+0x90"}, 80, silent=("UpscaleNoTraffic",)),
    Case("the frames go on", frames("OK", 600), 80, silent=("UpscaleNoTraffic",)),
    Case(
        "refusals take long",
        histogram("upscale_refusal_seconds", "0.005", 50, 60),
        30,
        fires=("UpscaleRefusesLate",),
    ),
    Case("refusals are quick", histogram("upscale_refusal_seconds", "0.005", 59, 60), 30,
         silent=("UpscaleRefusesLate",)),
    Case(
        "a tenth of the budgets is too small",
        frames("OK", 540) | frames("RESOURCE_EXHAUSTED", 60) | budget(met=540, too_small=60),
        30,
        fires=("UpscaleBudgetsTooSmall",),
        silent=("UpscaleRefuses",),
    ),
    Case("few budgets are too small", frames("OK", 600) | budget(met=594, too_small=6), 30,
         silent=("UpscaleBudgetsTooSmall",)),
    Case(
        "lesser networks answer a third",
        frames("OK", 600) | {'upscale_stepped_down_total{job="gateway",asked="v",variant="w"}': "0+200x90"},
        30,
        fires=("UpscaleStepsDown",),
    ),
    Case(
        "lesser networks answer some",
        frames("OK", 600) | {'upscale_stepped_down_total{job="gateway",asked="v",variant="w"}': "0+60x90"},
        30,
        silent=("UpscaleStepsDown",),
    ),
    Case(
        "no slot is free",
        gauges("upscale_slots", state__free="0x20", state__used="16x20", state__retired="0x20"),
        10,
        fires=("UpscaleSlotsExhausted",),
        silent=("UpscaleSlotsRetired",),
    ),
    Case(
        "now and then no slot is free",
        gauges("upscale_slots", state__free="0 0 3 0 0 0 2 0 0 0 1 0 0", state__used="16x12", state__retired="0x12"),
        10,
        silent=("UpscaleSlotsExhausted",),
    ),
    Case(
        "half of the slots are retired",
        gauges("upscale_slots", state__free="6x20", state__used="2x20", state__retired="8x20"),
        10,
        fires=("UpscaleSlotsRetired",),
        silent=("UpscaleSlotsExhausted",),
    ),
    Case(
        "no Triton is there",
        gauges("upscale_triton_up", endpoint__t1="1 0x20", endpoint__t2="0x20")
        | gauges("upscale_ready", instance__a="0x20")
        | up(a="1x20"),
        10,
        fires=("UpscaleTritonAllDown",),
        silent=("UpscaleTritonDown", "UpscaleNotReady", *UP),
    ),
    Case(
        "one of two Tritons is away",
        gauges("upscale_triton_up", endpoint__t1="1x20", endpoint__t2="1 0x20"),
        10,
        fires=("UpscaleTritonDown",),
        silent=("UpscaleTritonAllDown",),
    ),
    Case(
        "a Triton fails",
        gauges("upscale_breaker_open", endpoint__t1="0x20", endpoint__t2="0 1x20")
        | gauges("upscale_triton_up", endpoint__t1="1x20", endpoint__t2="1x20"),
        10,
        fires=("UpscaleTritonLeftAlone",),
        silent=("UpscaleTritonDown", "UpscaleTritonAllDown"),
    ),
    Case("Triton's metrics are away", up("triton", t1="1 0x20"), 15, fires=("UpscaleTritonNotScraped",)),
    Case(
        "all is well",
        gauges("upscale_triton_up", endpoint__t1="1x30", endpoint__t2="1 0 1x28")
        | gauges("upscale_breaker_open", endpoint__t1="0x30", endpoint__t2="0 1 0x28")
        | gauges("upscale_slots", state__free="14x30", state__used="2x30", state__retired="0x30")
        | gauges("upscale_ready", instance__a="2x30", instance__b="2 1 1 2x27")
        | gauges("upscale_workers", instance__a="2x30", instance__b="2x30")
        | up(a="1x30", b="1 0 1x28")
        | up("triton", t1="1x30"),
        20,
        silent=(*TRITON, *READY, *UP, "UpscaleSlotsExhausted", "UpscaleSlotsRetired"),
    ),
    Case("no gateway is there", up(a="1 0x20", b="0x20"), 10, fires=("UpscaleGatewayAllDown",),
         silent=("UpscaleGatewayDown",)),
    Case("no gateway is found", up("triton", t1="1x20"), 10, fires=("UpscaleGatewayAllDown",)),
    Case("one of two gateways is away", up(a="1x20", b="1 0x20"), 10, fires=("UpscaleGatewayDown",),
         silent=("UpscaleGatewayAllDown",)),
    Case(
        "no gateway is ready, though Triton is there",
        gauges("upscale_ready", instance__a="0x20")
        | gauges("upscale_triton_up", endpoint__t1="1x20")
        | up(a="1x20"),
        10,
        fires=("UpscaleNotReady",),
    ),
    Case("all workers are dead", up(a="1x20"), 10, fires=("UpscaleNotReady",), silent=UP),
    Case(
        "a worker is dead",
        gauges("upscale_ready", instance__a="2x20", instance__b="2 1x20")
        | gauges("upscale_workers", instance__a="2x20", instance__b="2x20")
        | up(a="1x20", b="1x20"),
        10,
        fires=("UpscaleWorkerDown",),
        silent=("UpscaleNotReady",),
    ),
    Case(
        "a gateway restarts again and again",
        gauges("upscale_started_timestamp_seconds", instance__a="0x4 300x4 600x4 900x20"),
        20,
        fires=("UpscaleGatewayRestarts",),
    ),
    Case(
        "a gateway was restarted once",
        gauges("upscale_started_timestamp_seconds", instance__a="0x4 300x30"),
        20,
        silent=("UpscaleGatewayRestarts",),
    ),
    Case(
        "a certificate ends in ten days",
        gauges("upscale_certificate_end_timestamp_seconds", instance__a="864000x30", instance__b="8640000x30"),
        20,
        fires=("UpscaleCertificateEnds",),
    ),
    Case(
        "one certificate ends in a hundred days, the other gateway has none",
        gauges("upscale_certificate_end_timestamp_seconds", instance__a="8640000x30", instance__b="0x30"),
        20,
        silent=("UpscaleCertificateEnds",),
    ),
    Case(
        "an event loop is stuck",
        gauges("upscale_loop_turned_timestamp_seconds", instance__a="0+60x5 300x20"),
        10,
        fires=("UpscaleEventLoopStuck",),
    ),
    Case(
        "an event loop turns",
        gauges("upscale_loop_turned_timestamp_seconds", instance__a="0+60x30"),
        10,
        silent=("UpscaleEventLoopStuck",),
    ),
    Case(
        "an event loop is slow",
        histogram("upscale_loop_lag_seconds", "0.02", 250, 300),
        30,
        fires=("UpscaleEventLoopSlow",),
    ),
    Case("an event loop is quick", histogram("upscale_loop_lag_seconds", "0.02", 299, 300), 30,
         silent=("UpscaleEventLoopSlow",)),
]  # fmt: skip


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL.exists(), "no promtool: 'make test' fetches it"
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)


def run(cases: list[Case], folder: Path) -> subprocess.CompletedProcess[str]:
    """Have promtool say whether the cases' alerts fire and are silent."""

    def expected(alert: str, at: int, samples: list[dict[str, object]]) -> dict[str, object]:
        firing = f'count by (severity) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
        return {"expr": firing, "eval_time": f"{at}m", "exp_samples": samples}

    rules = alerts()
    tests = [
        {
            "name": case.name,
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "promql_expr_test": [
                *(
                    expected(
                        alert, case.at, [{"labels": f'{{severity="{rules[alert]["labels"]["severity"]}"}}', "value": 1}]
                    )
                    for alert in case.fires
                ),
                *(expected(alert, case.at, []) for alert in case.silent),
            ],
        }
        for case in cases
    ]
    file = folder / "alerts.test.yml"
    content = {"rule_files": [str(path) for path in RULES], "evaluation_interval": "1m", "tests": tests}
    file.write_text(json.dumps(content))  # JSON is YAML
    return promtool("test", "rules", file)


def test_the_rules_and_the_configuration_are_valid() -> None:
    for arguments in (("check", "rules", *RULES), ("check", "config", PROMETHEUS / "prometheus.yml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_jobs_that_alerts_ask_for_are_scraped() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    asked_for = set(re.findall(r'job="(\w+)"', (PROMETHEUS / "rules" / "alerts.yml").read_text()))
    assert asked_for == {"gateway", "triton"}
    assert asked_for <= {each["job_name"] for each in config["scrape_configs"]}


def test_alerts_fire_and_stay_silent_as_they_should(tmp_path: Path) -> None:
    done = run(CASES, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("fires", "silent"), [((), (TRITON[0],)), ((UP[1],), ())])
def test_a_wrong_expectation_is_noticed(tmp_path: Path, fires: tuple[str, ...], silent: tuple[str, ...]) -> None:
    case = next(case for case in CASES if case.name == "no Triton is there")
    assert run([Case(case.name, case.series, case.at, fires, silent)], tmp_path).returncode != 0


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    assert {alert for case in CASES for alert in case.fires} == set(alerts())
    assert {alert for case in CASES for alert in case.silent} == set(alerts())


def test_every_alert_says_what_a_person_needs() -> None:
    for name, rule in alerts().items():
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("page", "ticket")
        told = rule["annotations"]
        assert told.keys() == {"summary", "description", "runbook_url"}, name
        assert len(told["summary"]) < 60, name
        assert not told["summary"].endswith("."), name
        assert told["description"].endswith("."), name


def test_every_alert_is_in_the_runbook_and_its_link_leads_there() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    assert [heading for heading in headings if heading.startswith("Upscale")] == list(alerts())
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for name, rule in alerts().items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert ROOT / page == RUNBOOK, name
        assert anchor == name.lower()
        assert anchor in anchors


def test_every_entry_of_the_runbook_says_the_same_five_things() -> None:
    parts = re.split(r"^## (Upscale\w+)\n", RUNBOOK.read_text(), flags=re.MULTILINE)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        told = re.findall(r"^\*\*(.+?)\*\*", body, flags=re.MULTILINE)
        assert told == ["For users.", "Look first.", "Likely causes.", "Do.", "Over when"], name
