import pytest
import torch

from mmattn.layers.codebooks import CodebookLearner, kmeans
from mmattn.layers.quantise import ResidualVQ


def clusters(count: int = 8, each: int = 30, dim: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(count, 1, dim, generator=generator)
    return (centres + 0.05 * torch.randn(count, each, dim, generator=generator)).flatten(0, 1)


def error_of(quantizer: ResidualVQ, x: torch.Tensor) -> float:
    return float((quantizer.decode(quantizer.encode(x[None]))[0] - x).square().mean())


def test_kmeans_finds_far_clusters() -> None:
    torch.manual_seed(0)
    x = clusters(4)
    found = min((kmeans(x, 4) for _ in range(5)), key=lambda c: float(torch.cdist(x, c).amin(1).sum()))
    assert torch.cdist(x.unflatten(0, (4, 30)).mean(1), found).amin(1).max() < 1e-4


def test_kmeans_with_more_centres_than_vectors_gives_the_vectors() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[1.0], [2.0], [4.0]])
    assert set(kmeans(x, 5).flatten().tolist()) == {1.0, 2.0, 4.0}


def test_the_start_quantises_each_stage_on_what_is_left() -> None:
    torch.manual_seed(0)
    x, quantizer, learner = clusters(), ResidualVQ(3, 8, 3), CodebookLearner(3, 8, 3)
    learner.start(quantizer, x, frames_per_step=60)
    errors = [float((quantizer.decode(quantizer.encode(x[None])[:, :q])[0] - x).square().mean()) for q in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    # Statistics of one step: 60 vectors, and a sum of them that gives the codewords.
    torch.testing.assert_close(learner.count.sum(1), torch.full((3,), 60.0))
    used = learner.count > 0
    torch.testing.assert_close((learner.total / learner.count[..., None])[used], quantizer.codebook[used])


def test_a_step_is_the_moving_average_by_hand() -> None:
    quantizer, learner = ResidualVQ(1, 2, 1), CodebookLearner(1, 2, 1, decay=0.5, dead_share=0.0)
    quantizer.codebook.copy_(torch.tensor([[[0.0], [10.0]]]))
    learner.adopt(quantizer)
    x = torch.tensor([[[1.0], [2.0], [12.0]]])
    assert learner.step(quantizer, x, *quantizer.stages(x)) == 0
    # Half of the old and half of the new: counts of 1 with 2 and 1, sums of 0 with 3 and of 10 with 12.
    assert learner.count.tolist() == [[1.5, 1.0]]
    assert quantizer.codebook.flatten().tolist() == [1.0, 11.0]


def test_later_codebooks_learn_the_residual() -> None:
    quantizer, learner = ResidualVQ(2, 1, 1), CodebookLearner(2, 1, 1, decay=0.0)
    quantizer.codebook.copy_(torch.tensor([[[3.0]], [[0.0]]]))
    learner.adopt(quantizer)
    x = torch.tensor([[[5.0], [7.0]]])
    learner.step(quantizer, x, *quantizer.stages(x))
    assert quantizer.codebook.flatten().tolist() == [6.0, 3.0]


def test_dead_codewords_are_put_onto_vectors_of_the_batch() -> None:
    torch.manual_seed(0)
    quantizer, learner = ResidualVQ(1, 4, 1), CodebookLearner(1, 4, 1, decay=0.5, dead_share=0.3)
    quantizer.codebook.copy_(torch.tensor([[[0.0], [1000.0], [2000.0], [1.0]]]))
    learner.adopt(quantizer)
    x = torch.tensor([[[0.0], [1.0], [0.2], [0.9]]])
    restarted = [learner.step(quantizer, x, *quantizer.stages(x)) for _ in range(3)]
    assert restarted[0] == 0
    assert sum(restarted) >= 2
    assert quantizer.codebook.max() < 1.5


def test_learning_approaches_the_data() -> None:
    torch.manual_seed(0)
    x, quantizer, learner = clusters(), ResidualVQ(2, 8, 3), CodebookLearner(2, 8, 3, decay=0.8)
    learner.adopt(quantizer)
    before = error_of(quantizer, x)
    for _ in range(60):
        batch = x[torch.randint(len(x), (1, 64))]
        learner.step(quantizer, batch, *quantizer.stages(batch))
    assert error_of(quantizer, x) < 0.02 * before


def test_adopted_codebooks_stay_when_nothing_pulls_at_them() -> None:
    torch.manual_seed(0)
    quantizer, learner = ResidualVQ(1, 6, 2), CodebookLearner(1, 6, 2)
    book = quantizer.codebook.clone()
    learner.adopt(quantizer)
    x = book.clone()
    assert learner.step(quantizer, x, *quantizer.stages(x)) == 0
    torch.testing.assert_close(quantizer.codebook, book)
    assert quantizer.codebook[0, 0].tolist() == pytest.approx(book[0, 0].tolist())
