import pytest

from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.judges.alignment import AlignmentReport
from mmattn.speech.lina.judges.watchdog import SECONDS_PER_TOKEN, Watchdog
from tests.speech.lina.tiny import tiny_config

DOG = Watchdog(frame_rate=50.0, seconds_per_token=0.1, ratio=2.0, max_seconds=5.0)
FAITHFUL = AlignmentReport(1.0, 1.0, (), (), True)


@pytest.mark.parametrize(("tokens", "frames"), [(0, 50), (1, 60), (10, 150), (20, 250), (1000, 250)])
def test_a_sentence_is_cut_at_a_multiple_of_what_is_expected(tokens: int, frames: int) -> None:
    assert DOG.limit(tokens) == frames


def test_a_limit_is_never_below_a_frame() -> None:
    assert Watchdog(50.0, 0.1, 2.0, max_seconds=1e-3).limit(5) == 1


def test_the_tokenizer_says_what_is_expected_unless_the_run_does() -> None:
    config = tiny_config(tokenizer="gruut")
    assert Watchdog.of(LinaInferOptions(), config, 75.0).seconds_per_token == SECONDS_PER_TOKEN["gruut"]
    assert Watchdog.of(LinaInferOptions(seconds_per_token=0.5), config, 75.0).seconds_per_token == 0.5


def test_one_head_of_several_says_nothing_about_words() -> None:
    watchdog = Watchdog.of(LinaInferOptions(), tiny_config(cross_attention="plain"), 50.0)
    lost = AlignmentReport(0.5, 0.5, (0,), (1,), False)
    assert watchdog.problems(10, 2, 50, finished=True, report=lost) == ()


def test_each_problem_is_named() -> None:
    def problems(frames: int = 50, tokens: int = 10, finished: bool = True, **report: object) -> tuple[str, ...]:
        fields = {**vars(FAITHFUL), **report}
        return DOG.problems(tokens, 2, frames, finished=finished, report=AlignmentReport(**fields))

    assert problems() == ()
    assert problems(finished=False) == ("did not stop",)
    assert problems(frames=24) == ("too short",)
    assert problems(frames=10, tokens=3) == ()
    assert problems(frames=9, tokens=3) == ("too short",)
    assert problems(frames=9, tokens=3, finished=False) == ("did not stop",)
    assert problems(reached_end=False) == ("did not reach the end",)
    assert problems(skipped=(2,), repeated=(1,)) == ("skipped words", "repeated words")
