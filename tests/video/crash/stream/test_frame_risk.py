import numpy as np

from mmattn.video.crash.stream.frame_risk import Sight


def test_the_strongest_are_in_order_and_the_first_of_equals_stays():
    boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
    scores = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    attention = np.array([0.2, 0.5, 0.2, 0.1], np.float32)
    seen = Sight(boxes, scores, ("car", "two_wheeler", "truck", "other"), attention).strongest(2)
    assert seen.classes == ("two_wheeler", "car")
    assert seen.captions == ["two wheeler", "car"]
    assert seen.boxes.tolist() == boxes[[1, 0]].tolist()
    assert seen.scores.tolist() == scores[[1, 0]].tolist()
    assert seen.attention.tolist() == attention[[1, 0]].tolist()


def test_fewer_than_asked_for_are_all():
    none = Sight(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), np.zeros(0, np.float32))
    assert none.strongest(5).boxes.shape == (0, 4)
