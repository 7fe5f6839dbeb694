"""What is measured on clips, against scipy, against closed forms, and against what the renderer knows."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from sora_edu import measures as ms
from sora_edu.data import world
from sora_edu.data.judge import judge
from sora_edu.data.world import Scene, Thing

# ---- Statistics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 2), (205, 256), (256, 256)])
def test_wilson_is_that_of_scipy(successes, n):
    theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert ms.wilson(successes, n) == pytest.approx((theirs.low, theirs.high))


def test_a_proportion_is_a_figure():
    figure = ms.proportion([True, True, False, True])
    assert (figure["value"], figure["n"]) == (0.75, 4)
    assert figure["ci95"] == pytest.approx(ms.wilson(3, 4))


def test_impossible_proportions_are_refused():
    for successes, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="successes"):
            ms.wilson(successes, n)


def test_an_average_has_students_interval():
    values = [31.0, 33.5, 30.2, 36.1]
    figure = ms.average(values)
    theirs = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert figure["ci95"] == pytest.approx(theirs)
    assert ms.average([1.0])["ci95"] is None


@pytest.mark.parametrize("values", [[1.0], [1.0, 3.0], [2.0, 2.0, 2.0], [1j, 1.0, -1j]])
def test_scatter_over_freedom_is_the_variance(values):
    square, freedom = ms.scatter(values)
    assert freedom == len(values) - 1
    if freedom:
        assert square / freedom == pytest.approx(np.var(values, ddof=1))


# ---- Pixels ----------------------------------------------------------------------------------------------


def test_psnr_of_a_uniform_error():
    target = torch.zeros(3, 2, 8, 8)
    assert ms.psnr(target + 0.2, target) == pytest.approx(20)  # 20 log10(2 / 0.2)
    assert ms.psnr(target, target) == math.inf
    where = torch.zeros(2, 8, 8, dtype=torch.bool)
    where[:, :4] = True
    video = target.clone()
    video[:, :, :4] = 0.02
    video[:, :, 4:] = 2
    assert ms.psnr(video, target, where) == pytest.approx(40, rel=1e-5)


def test_boxes_hold_every_pixel_of_the_thing_and_little_else():
    scene = Scene((Thing("star", "red", "small", "bounces"),), "dark", "still", None, 4)
    clip, mask = world.render(scene, 9, 64, 64), ms.box_mask(scene, 9, 64, 64)
    drawn = (clip - clip[:, :1, :1, :1]).abs().amax(0) > 1e-4
    assert not (drawn & ~mask).any()
    # A small star is 19 pixels across (1.15 x 0.13 x 64 each way), and there are 2 pixels around it.
    assert mask.sum((1, 2)).max() <= 25 * 25


def test_a_seam_is_where_given_meets_made():
    mask = torch.zeros(4, 4, 4)
    mask[2:] = 1
    video = torch.arange(4.0)[:, None, None].expand(3, 4, 4, 4) ** 2
    assert ms.seam(video, mask) == 3  # from frame 1 to frame 2
    box = torch.zeros(4, 4, 4)
    box[:, :, 2:] = 1
    across = torch.arange(4.0).expand(3, 4, 4, 4) * 5
    assert ms.seam(across, box) == 5
    assert ms.seam(video, box) == 0
    assert ms.seam(video, torch.ones(4, 4, 4)) == 0
    assert ms.beside_seams(mask) == [2]
    assert ms.beside_seams(box) == []


# ---- Readings --------------------------------------------------------------------------------------------


def test_the_joint_error_is_in_pixels():
    entry = world.evaluation_set("seen", 1, 0)[0]
    clip = world.render(entry.scene)
    moved = judge(clip.roll(3, dims=-1))
    assert ms.joint_error(moved, judge(clip), [4, 5], 64) == pytest.approx(3, abs=0.2)
    assert ms.joint_error(judge(torch.zeros_like(clip)), judge(clip), [4], 64) is None


@pytest.mark.parametrize("motion", ["moves left", "orbits", "spins", "grows"])
def test_starts_are_read_as_the_renderer_knows_them(motion):
    for seed in range(6):
        scene = Scene((Thing("square", "blue", "large", motion),), "light", "still", None, seed)
        path, found = world.trajectories(scene), ms.start_of(judge(world.render(scene)).things[0])
        assert found["start_x"] == pytest.approx(path.x[0, 0], abs=0.01)
        assert found["start_y"] == pytest.approx(path.y[0, 0], abs=0.01)
        assert found["size"] == pytest.approx(math.log(path.radius[0, 0]), abs=0.05)
        if motion == "spins":
            assert abs(found["phase"] - np.exp(4j * path.angle[0, 0])) < 0.3
        if motion == "orbits":
            spoke = complex(path.x[0, 0], path.y[0, 0]) - _orbit_centre(path)
            assert abs(found["phase"] - spoke / abs(spoke)) < 0.1


def _orbit_centre(path) -> complex:
    """From three points: where the perpendicular bisectors of two chords meet."""
    (ax, bx, cx), (ay, by, cy) = path.x[0, [0, 5, 10]], path.y[0, [0, 5, 10]]
    system = np.array([[bx - ax, by - ay], [cx - ax, cy - ay]])
    squares = np.array([bx**2 - ax**2 + by**2 - ay**2, cx**2 - ax**2 + cy**2 - ay**2]) / 2
    return complex(*np.linalg.solve(system, squares))


def starts(rng, scale: float, prompts: int = 40, each: int = 8):
    names = ("start_x", "start_y", "size")
    return [
        [{name: 10 * prompt + scale * rng.normal() for name in names} for _ in range(each)]
        for prompt in range(prompts)
    ]


def test_diversity_of_the_same_distribution_is_one_and_of_half_of_it_a_half():
    rng = np.random.default_rng(0)
    real = starts(rng, 1.0)
    for scale in (1.0, 0.5):  # the prompts' own means differ, and must not count
        found = ms.diversity(starts(rng, scale), real)
        assert found["ratio"]["value"] == pytest.approx(scale, rel=0.1)
        low, high = found["ratio"]["ci95"]
        assert low < found["ratio"]["value"] < high
        assert high - low < 0.25 * scale
        assert "phase" not in found


def test_one_clip_a_prompt_has_no_diversity_however_different_the_prompts():
    rng = np.random.default_rng(0)
    collapsed = [[group[0]] * len(group) for group in starts(rng, 1.0)]
    found = ms.diversity(collapsed, starts(rng, 1.0))
    assert found["ratio"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["distinct"]["value"] == 0
    assert found["distinct_real"]["value"] > 0.99


def test_diversity_of_nothing_is_absent():
    assert ms.diversity([[], []], starts(np.random.default_rng(0), 1.0, prompts=2)) == {}


# ---- Sets of clips ---------------------------------------------------------------------------------------


def correlated(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Features whose covariance is far from diagonal."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(seed + 100))
    return torch.randn(n, d, generator=generator) @ mix + shift


@pytest.mark.parametrize("d", [1, 5, 32])
def test_the_frechet_distance_is_scipys_matrix_root(d):
    one, two = correlated(200, d, 0), correlated(150, d, 1, shift=0.5)
    a, b = one.double().numpy(), two.double().numpy()
    c1, c2 = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = linalg.sqrtm(c1 @ c2)
    theirs = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root.real)
    assert ms.frechet(one, two) == pytest.approx(theirs, rel=1e-6)
    assert ms.frechet(two, one) == pytest.approx(theirs, rel=1e-6)
    assert ms.frechet(one, one) == pytest.approx(0, abs=1e-5)


def test_the_frechet_distance_of_shifted_and_scaled_sets_is_known():
    x = correlated(500, 4, 3)
    assert ms.frechet(x, x + 2) == pytest.approx(4 * 2**2, rel=1e-5)  # four means moved by 2
    spread = torch.cov(x.double().T).trace().item()
    mean = x.double().mean(0).square().sum().item()
    assert ms.frechet(x, 3 * x) == pytest.approx((3 - 1) ** 2 * (spread + mean), rel=1e-5)


def test_fewer_samples_than_features_still_give_a_number_and_a_larger_one():
    x = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    few, many = ms.frechet(x[:8], x[8:16]), ms.frechet(x[:2000], x[2000:])
    assert few > 10 * many >= 0


def test_sets_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="two or more"):
        ms.frechet(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="as many features"):
        ms.frechet(torch.zeros(5, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="not finite"):
        ms.frechet(torch.full((5, 3), math.nan), torch.zeros(5, 3))


def test_the_ratio_is_the_models_distance_over_that_of_real_clips():
    """Shifted by 3 along one of four axes: 9; real clips through the autoencoder shifted by 2: 4."""
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    shift = torch.tensor([1.0, 0, 0, 0]).double()
    found = ms.frechet_figures(features + 3 * shift, features + 2 * shift, features)
    assert found["model"]["value"] == pytest.approx(9, abs=1e-4)
    assert found["floor"]["value"] == pytest.approx(4, abs=1e-4)
    assert found["ratio"] == {"value": pytest.approx(9 / 4, abs=1e-4), "n": 50, "ci95": None}


def test_features_come_in_order_whatever_the_batch():
    clips = torch.randn(7, 3, 5, 4, 4, generator=torch.Generator().manual_seed(0))

    def network(videos):
        assert len(videos) <= 3
        return videos.flatten(2).mean(2)

    assert torch.allclose(ms.features_of(network, iter(clips), batch=3), clips.flatten(2).mean(2), atol=1e-6)
    with pytest.raises(ValueError, match="empty"):
        ms.features_of(network, [])
    with pytest.raises(ValueError, match="a vector for each"):
        ms.features_of(lambda videos: videos.mean(), clips)


def test_the_clip_score_is_the_mean_cosine_of_frames_in_per_cent():
    texts = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    frames = torch.tensor([[[3.0, 0.0], [1.0, 1.0]], [[0.0, -1.0], [0.0, 0.5]]])
    score = ms.clip_score(frames, texts)
    first, second = (1 + math.sqrt(0.5)) / 2, (0 + 1) / 2  # a cosine of -1 counts as 0
    assert score["value"] == pytest.approx(100 * (first + second) / 2)
    assert score["n"] == 2 and score["ci95"][0] < score["value"] < score["ci95"][1]
    for pictures, others in ((frames, texts[:1]), (frames, torch.zeros(2, 3)), (frames[:, :0], texts)):
        with pytest.raises(ValueError, match="n, t, d"):
            ms.clip_score(pictures, others)
