"""Video AP and the report of all accident metrics."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mmattn.metrics.accident import accident_report, far_threshold, legacy_metrics, nexar_map, video_ap
from tests.metrics.clips import Clips, clip_sets, random_clips


@given(clip_sets(both_kinds=True), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_video_ap_is_that_of_scikit_learn_and_follows_the_ranking_alone(clips: Clips, random: object) -> None:
    best = [row[:toa].max() for row, toa in zip(clips.scores, clips.toas, strict=True)]
    value = video_ap(*clips)
    assert value == pytest.approx(average_precision_score(clips.labels, best))
    order = np.arange(len(clips.labels))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = clips.permuted(order)
    assert video_ap(np.exp(5 * moved.scores), moved.labels, moved.toas) == pytest.approx(value)


def test_video_ap_needs_both_kinds_of_clips() -> None:
    assert math.isnan(video_ap([[0.5]], [1], [1]))
    assert math.isnan(video_ap([[0.5]], [0], [1]))


def test_a_report_holds_every_metric_under_its_name() -> None:
    clips = random_clips(0, count=40, frames=50)
    threshold = far_threshold(random_clips(1, accidents=0.0, frames=50).scores.max(axis=1), 0.1)
    report = accident_report(*clips, 10.0, threshold=threshold)
    ends = np.where(clips.labels == 1, clips.toas, 50)
    assert (report.clips, report.accidents) == (40, clips.labels.sum())
    assert report.video_ap == video_ap(*clips)
    assert report.legacy_mtta == legacy_metrics(*clips, 10.0).mtta
    assert report.nexar_map_matched == nexar_map(clips.scores, clips.labels, ends, 10.0, cut="matched").mean
    assert report.nexar_map_positives == nexar_map(clips.scores, clips.labels, ends, 10.0, cut="positives").mean
    assert 0 < report.lead_time_far10 < 5
    assert all(math.isfinite(value) for value in report.scores().values())
    assert "legacy_mtta" in str(report)
    assert f"{report.legacy_mtta:.3f} s" in str(report)


def test_without_a_validation_threshold_lead_time_is_not_reported() -> None:
    report = accident_report(*random_clips(0, count=40, frames=50), 10.0)
    assert report.to_json()["lead_time_far10"] is None
    assert "lead_time_far10      n/a" in str(report)


def test_references_move_the_matched_cut_only() -> None:
    clips = random_clips(3, count=40, frames=50)
    plain = accident_report(*clips, 10.0)
    early = accident_report(*clips, 10.0, references=np.where(clips.labels == 1, clips.toas, 20))
    assert early.nexar_map_matched != plain.nexar_map_matched
    assert early.nexar_map_positives == plain.nexar_map_positives


@pytest.mark.parametrize("label", [0, 1])
def test_one_kind_of_clip_is_reported_as_not_available(label: int) -> None:
    report = accident_report([[0.5, 0.6]], [label], [2], 1.0)
    assert report.to_json()["video_ap"] is None
    assert report.to_json()["nexar_map_matched"] is None
    assert "video_ap             n/a" in str(report)


def test_an_empty_test_set_is_reported_as_not_available() -> None:
    report = accident_report(np.zeros((0, 4)), [], [], 1.0)
    assert (report.clips, report.accidents) == (0, 0)
    assert all(math.isnan(value) for value in report.scores().values())


def test_trimmed_clips_have_no_legacy_numbers() -> None:
    report = accident_report([[0.5] * 30, [0.1] * 30], [1, 0], [35, 31], 10.0)
    assert report.to_json()["legacy_ap"] is None
    assert report.video_ap == 1.0


def test_a_chance_scorer_has_a_low_ap_and_a_splendid_mtta() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(460) < 165).astype(int)
    level = rng.random((460, 1)) + 0.05 * rng.standard_normal((460, 100))
    report = accident_report(np.clip(level, 0.001, 0.999), labels, np.where(labels, 90, 101), 20.0)
    assert report.legacy_ap == pytest.approx(165 / 460, abs=0.05)
    assert report.legacy_mtta > 4.5
    assert report.mtta_far10 < 0.5
    assert report.mauc_far10 == pytest.approx(0.5, abs=0.05)
