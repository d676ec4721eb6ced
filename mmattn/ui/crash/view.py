"""The parts of the CRASH page that are drawn from a result: verdict, risk curve with a playhead, false alarms.

The curve is HTML and SVG, so moving a slider sends a few kilobytes and no picture. Its playhead follows the video in
the visitor's browser (:data:`FOLLOW_VIDEO`), and a click on the curve moves the video there.
"""

from __future__ import annotations

import json
import math
from html import escape

import numpy as np

from mmattn.ui.theme import bar_html, waiting_html
from mmattn.video.crash.results import CrashResult
from mmattn.video.crash.stream.alerts import Alert, AlertRule, FalseAlarms
from mmattn.video.crash.stream.frame_risk import Sight
from mmattn.video.crash.stream.normal_driving import NormalDriving

__all__ = ["CURVE_CSS", "FOLLOW_VIDEO", "alarms_html", "attended", "curve_html", "verdict_html"]

_MOST_POINTS = 1200
_NAMED = 2
_SHORTEST_MINUTES = 1.0

FOLLOW_VIDEO = """
let plot = null, steps = [], alerts = [];
const find = (name) => plot.querySelector(name);
const video = () => document.querySelector('#crash-video video');
const show = (now) => {
  let i = steps.length - 1;
  while (i > 0 && steps[i][0] > now + 1e-3) i -= 1;
  const [time, risk, std, users] = steps[i];
  const first = steps[0][0], length = Math.max(steps[steps.length - 1][0] - first, 1e-3);
  find('.cursor').style.left = `${100 * Math.min(Math.max((now - first) / length, 0), 1)}%`;
  find('.now .time').textContent = `${now.toFixed(1)} s`;
  find('.now .risk').textContent = risk.toFixed(2) + (std === null ? '' : ` ± ${std.toFixed(2)}`);
  find('.now .users').textContent = users;
  const alarm = alerts.some((at) => now >= at - 1e-3 && now < at + 1);
  plot.classList.toggle('alarm', alarm);
  return alarm;
};
const follow = () => {
  if (!element.isConnected) {
    setTimeout(follow, 500);
    return;
  }
  const current = element.querySelector('.mm-risk[data-steps]');
  if (current !== plot) {
    plot = current;
    steps = plot ? JSON.parse(plot.dataset.steps) : [];
    alerts = plot ? JSON.parse(plot.dataset.alerts) : [];
  }
  const player = video();
  if (plot && steps.length && player) {
    const alarm = show(steps[0][0] + player.currentTime);
    player.style.outline = alarm ? '6px solid #e66316' : '';
    player.style.outlineOffset = '-6px';
  }
  requestAnimationFrame(follow);
};
element.addEventListener('click', (event) => {
  const area = event.target.closest('.plot'), player = video();
  if (!area || !player || !steps.length) return;
  const place = area.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - place.left) / place.width, 0), 1);
  player.currentTime = share * (steps[steps.length - 1][0] - steps[0][0]);
});
follow();
"""

CURVE_CSS = """
.mm-risk { font-size: .9rem; }
.mm-risk .plot { position: relative; height: 150px; margin: 22px 4px 4px 30px; cursor: pointer;
  border-left: 1px solid var(--border-color-primary); border-bottom: 1px solid var(--border-color-primary); }
.mm-risk svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.mm-risk .band { fill: #56b4e9; opacity: .25; }
.mm-risk .line { fill: none; stroke: #0072b2; stroke-width: 2.5; vector-effect: non-scaling-stroke; }
.dark .mm-risk .line { stroke: #56b4e9; }
.mm-risk .limit { stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 6 5; vector-effect: non-scaling-stroke; }
.mm-risk .y { position: absolute; left: -28px; transform: translateY(-50%); opacity: .7; }
.mm-risk .alert { position: absolute; top: 0; bottom: 0; width: 0; border-left: 2px solid #e66316; }
.mm-risk .alert span { position: absolute; top: -21px; left: -2px; white-space: nowrap; background: #e66316;
  color: #fff; border-radius: 4px; padding: 0 6px; font-size: .75rem; line-height: 18px; }
.mm-risk .alert.late span { left: auto; right: 0; }
.mm-risk .cursor { position: absolute; top: -4px; bottom: -4px; left: 0; width: 2px; margin-left: -1px;
  background: currentColor; }
.mm-risk .x { display: flex; justify-content: space-between; margin: 0 4px 6px 30px; opacity: .7; }
.mm-risk .now { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: center; min-height: 28px;
  margin-left: 30px; font-variant-numeric: tabular-nums; }
.mm-risk .now b { display: inline-block; min-width: 3.4em; }
.mm-risk .word { visibility: hidden; background: #e66316; color: #fff; border-radius: 6px; padding: 2px 10px;
  font-weight: 700; letter-spacing: .06em; }
.mm-risk.alarm .word { visibility: visible; }
.mm-risk.empty { opacity: .7; padding: 12px 4px; }
.mm-doubts { margin: 6px 0 0; padding: 8px 12px 8px 28px; border-left: 4px solid #e69f00;
  background: color-mix(in srgb, #e69f00 14%, transparent); }
"""


def verdict_html(result: CrashResult | None) -> str:
    """The coloured line with the highest risk, the alerts in words, and the bar with the threshold."""
    if result is None:
        return waiting_html("No video watched yet")
    alerts = result.alerts
    word = "no alert"
    if alerts:
        count = "1 alert" if len(alerts) == 1 else f"{len(alerts)} alerts, the first"
        word = f"{count} at {alerts[0].time:.1f} s"
    bar = bar_html(result.score, result.rule.threshold)
    return (
        f'<div class="mm-verdict {"anomalous" if alerts else "normal"}"><span class="number">{result.score:.2f}</span>'
        f'<span>highest risk</span><span class="word">{word}</span>{bar}</div>{_doubts_html(result)}'
    )


def _doubts_html(result: CrashResult) -> str:
    """Why the result should not be trusted, below the line."""
    reasons = "".join(f"<li>{escape(doubt.message)}</li>" for doubt in result.doubts)
    return f'<ul class="mm-doubts" role="note">{reasons}</ul>' if reasons else ""


def curve_html(result: CrashResult | None) -> str:
    """The risk over time with threshold, alerts and playhead, and what is attended to at the playhead's moment."""
    if result is None:
        return '<div class="mm-risk empty">The risk over time appears here and follows the video.</div>'
    alerts = result.alerts
    steps = [
        [round(float(time), 3), round(float(risk), 4), _deviation(result, i), attended(result.sights[i])]
        for i, (time, risk) in enumerate(zip(result.times, result.risk, strict=True))
    ]
    level = 100 * (1 - result.rule.threshold)
    marks = "".join(_alert_html(number, alert, result) for number, alert in enumerate(alerts, start=1))
    data = f"data-steps='{escape(json.dumps(steps), quote=True)}' data-alerts='{json.dumps([a.time for a in alerts])}'"
    return (
        f'<div class="mm-risk" {data}><div class="plot" role="img" aria-label="risk over time">'
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none">{_band(result)}'
        f'<line class="limit" x1="0" x2="1000" y1="{level:.2f}" y2="{level:.2f}"/>'
        f'<polyline class="line" points="{_points(result)}"/></svg>'
        '<span class="y" style="top:0">1</span><span class="y" style="top:50%">0.5</span>'
        f'<span class="y" style="top:100%">0</span>{marks}<div class="cursor"></div></div>'
        f'<div class="x"><span>{result.times[0]:.1f} s</span><span>risk of an accident; dashed: threshold</span>'
        f"<span>{result.times[-1]:.1f} s</span></div>"
        '<div class="now"><span>time <b class="time"></b></span><span>risk <b class="risk"></b></span>'
        '<span>looks at <span class="users"></span></span><span class="word">ALERT</span></div></div>'
    )


def alarms_html(result: CrashResult | None, driving: NormalDriving | None, rule: AlertRule) -> str:
    """How often these settings would raise an alert without cause, as far as that is known."""
    lines = []
    if driving is None:
        lines.append(
            "False alarms per hour: not known for this model. Measure them on your own uneventful driving with "
            "<code>mmattn calibrate crash FOLDER</code>."
        )
    else:
        rate = driving.false_alarms(rule)
        lines.append(
            f"Estimated false alarms: <b>{_rate(rate.per_hour)} per hour</b> (with 95 % confidence at most "
            f"{_rate(rate.at_most)}), counted on {rate.hours * 60:.0f} minutes of {escape(driving.source)}."
        )
    if result is not None and result.times[-1] - result.times[0] >= 60 * _SHORTEST_MINUTES:
        here = FalseAlarms.count([(result.risk, result.times)], rule)
        lines.append(f"If nothing happened in this video, its alerts come to {_rate(here.per_hour)} per hour.")
    return f'<div id="crash-alarms-text">{"<br>".join(lines)}</div>'


def attended(sight: Sight) -> str:
    """Names the road users that most of the attention goes to, as "car 62 %, pedestrian 20 %".

    Slots that hold the same box count together.
    """
    weights: dict[tuple[float, ...], float] = {}
    names: dict[tuple[float, ...], str] = {}
    for box, name, weight in zip(sight.boxes.tolist(), sight.classes, sight.attention.tolist(), strict=True):
        weights[tuple(box)] = weights.get(tuple(box), 0.0) + weight
        names[tuple(box)] = "the scene" if name == "other" else name.replace("_", " ")
    most = sorted(weights, key=lambda box: -weights[box])[:_NAMED]
    return ", ".join(f"{names[box]} {100 * weights[box]:.0f} %" for box in most) or "the scene"


def _rate(value: float) -> str:
    return "unknown" if not math.isfinite(value) else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _deviation(result: CrashResult, step: int) -> float | None:
    return None if result.uncertainty is None else round(float(result.uncertainty[step]), 4)


def _place(result: CrashResult, time: float) -> float:
    """Returns where a moment lies between the first and the last step, in [0, 1]."""
    length = max(float(result.times[-1] - result.times[0]), 1e-3)
    return (time - float(result.times[0])) / length


def _alert_html(number: int, alert: Alert, result: CrashResult) -> str:
    left = _place(result, alert.time)
    late = " late" if left > 0.85 else ""
    return (
        f'<div class="alert{late}" style="left:{100 * left:.2f}%" title="alert {number} at {alert.time:.2f} s">'
        f"<span>{number} · {alert.time:.1f} s</span></div>"
    )


def _points(result: CrashResult, shift: float = 0.0) -> str:
    """The curve, moved up by so many deviations; of long videos the highest value of each stretch."""
    values = result.risk if result.uncertainty is None else result.risk + shift * result.uncertainty
    stretch = -(-len(values) // _MOST_POINTS)
    starts = np.arange(0, len(values), stretch)
    highest = np.maximum.reduceat(values, starts).clip(0, 1)
    return " ".join(
        f"{1000 * _place(result, float(result.times[start])):.1f},{100 * (1 - value):.2f}"
        for start, value in zip(starts.tolist(), highest.tolist(), strict=True)
    )


def _band(result: CrashResult) -> str:
    """One standard deviation to both sides, where it is known."""
    if result.uncertainty is None:
        return ""
    low = " ".join(reversed(_points(result, -1.0).split(" ")))
    return f'<polygon class="band" points="{_points(result, 1.0)} {low}"/>'
