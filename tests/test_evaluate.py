"""The evaluation: its statistics against scipy, its instruments against the renderer's truth, and all of it
on two models whose results are known: one renders what it is asked for, the other makes nothing."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import nn

from sora_edu import evaluate as ev
from sora_edu.data import world
from sora_edu.data.judge import judge
from sora_edu.data.world import Scene, Thing
from sora_edu.sora import Sora

# ---- Statistics -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 2), (205, 256), (256, 256)])
def test_wilson_is_that_of_scipy(successes, n):
    theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert ev.wilson(successes, n) == pytest.approx((theirs.low, theirs.high))


def test_a_proportion_is_a_figure():
    figure = ev.proportion([True, True, False, True])
    assert (figure["value"], figure["n"]) == (0.75, 4)
    assert figure["ci95"] == pytest.approx(ev.wilson(3, 4))


def test_impossible_proportions_are_refused():
    for successes, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="successes"):
            ev.wilson(successes, n)


def test_an_average_has_students_interval():
    values = [31.0, 33.5, 30.2, 36.1]
    figure = ev.average(values)
    theirs = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert figure["ci95"] == pytest.approx(theirs)
    assert ev.average([1.0])["ci95"] is None


@pytest.mark.parametrize("values", [[1.0], [1.0, 3.0], [2.0, 2.0, 2.0], [1j, 1.0, -1j]])
def test_scatter_over_freedom_is_the_variance(values):
    square, freedom = ev.scatter(values)
    assert freedom == len(values) - 1
    if freedom:
        assert square / freedom == pytest.approx(np.var(values, ddof=1))


# ---- Pixels ---------------------------------------------------------------------------------------------


def test_psnr_of_a_uniform_error():
    target = torch.zeros(3, 2, 8, 8)
    assert ev.psnr(target + 0.2, target) == pytest.approx(20)  # 20 log10(2 / 0.2)
    assert ev.psnr(target, target) == math.inf
    where = torch.zeros(2, 8, 8, dtype=torch.bool)
    where[:, :4] = True
    video = target.clone()
    video[:, :, :4] = 0.02
    video[:, :, 4:] = 2
    assert ev.psnr(video, target, where) == pytest.approx(40, rel=1e-5)


def test_boxes_hold_every_pixel_of_the_thing_and_little_else():
    scene = Scene((Thing("star", "red", "small", "bounces"),), "dark", "still", None, 4)
    clip, mask = world.render(scene, 9, 64, 64), ev.box_mask(scene, 9, 64, 64)
    drawn = (clip - clip[:, :1, :1, :1]).abs().amax(0) > 1e-4
    assert not (drawn & ~mask).any()
    # A small star is 19 pixels across (1.15 x 0.13 x 64 each way), and there are 2 pixels around it.
    assert mask.sum((1, 2)).max() <= 25 * 25


# ---- Diversity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", ["moves left", "orbits", "spins", "grows"])
def test_starts_are_read_as_the_renderer_knows_them(motion):
    for seed in range(6):
        scene = Scene((Thing("square", "blue", "large", motion),), "light", "still", None, seed)
        path, found = world.trajectories(scene), ev.start_of(judge(world.render(scene)).things[0])
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
        found = ev.diversity(starts(rng, scale), real)
        assert found["ratio"]["value"] == pytest.approx(scale, rel=0.1)
        low, high = found["ratio"]["ci95"]
        assert low < found["ratio"]["value"] < high
        assert high - low < 0.25 * scale
        assert "phase" not in found


def test_one_clip_a_prompt_has_no_diversity_however_different_the_prompts():
    rng = np.random.default_rng(0)
    collapsed = [[group[0]] * len(group) for group in starts(rng, 1.0)]
    found = ev.diversity(collapsed, starts(rng, 1.0))
    assert found["ratio"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["distinct"]["value"] == 0
    assert found["distinct_real"]["value"] > 0.99


def test_diversity_of_nothing_is_absent():
    assert ev.diversity([[], []], starts(np.random.default_rng(0), 1.0, prompts=2)) == {}


def test_diversity_prompts_take_the_motions_in_turn():
    scenes = [world.parse(prompt) for prompt in ev.diversity_prompts(22, 0)]
    assert [scene.things[0].motion for scene in scenes] == list(world.MOTIONS) * 2
    assert all(scene.things[0].size is None and scene.background is None for scene in scenes)


# ---- The whole ------------------------------------------------------------------------------------------


class Stand(Sora):
    """Stands in for a trained model."""

    def __init__(self, encode, decode):
        nn.Module.__init__(self)
        self.config = SimpleNamespace(sizes=((17, 64, 64),), steps=20, guidance=3.0, tasks=("text_to_video",))
        self.sha256 = "0" * 64
        self.autoencoder = nn.Module()
        self.autoencoder.encode, self.autoencoder.decode = encode, decode
        self.autoencoder.device = torch.device("cpu")


class Perfect(Stand):
    """Renders a scene that fits the prompt, and keeps every pixel."""

    def __init__(self):
        super().__init__(lambda video: video, lambda latents: latents)

    def sample(self, prompts, seeds, *, frames, height, width, **_):
        scenes = [world.parse(prompt).complete(seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return world.render_batch(scenes, frames, height, width)


class Blank(Stand):
    """Makes grey clips, and forgets everything."""

    def __init__(self):
        super().__init__(lambda video: video, torch.zeros_like)

    def sample(self, prompts, seeds, *, frames, height, width, **_):
        return torch.zeros(len(prompts), 3, frames, height, width)


def test_a_perfect_model_scores_as_the_judge_does(tmp_path):
    done = []
    report = ev.evaluate(Perfect(), n=16, splits=("seen", "two_objects"), advance=lambda _, n: done.append(n))
    assert report["adherence"]["seen"]["value"] >= 0.9
    assert report["judge"]["by_split"]["seen"]["clean"]["value"] >= 0.95
    assert report["judge"]["autoencoder"] == report["judge"]["clean"]
    assert report["judge"]["clean"]["n"] == 16
    assert report["autoencoder"]["by_split"]["seen"]["psnr"]["value"] > 50  # 8 bits alone
    assert "psnr" not in report["autoencoder"]  # held-out scenes were not asked for
    assert 0.5 < report["diversity"]["ratio"]["value"] < 2
    obeyed = report["physics"]
    assert {law: figure["value"] for law, figure in obeyed.items()} == dict.fromkeys(obeyed, 1.0)
    assert obeyed["gravity_within_5_percent"]["n"] == 8 and "permanence" not in obeyed
    assert report["network_evaluations"] == 40
    assert sum(done) == ev.work(Perfect(), 16, ("seen", "two_objects"))
    path = ev.save_report(report, tmp_path / "report.json")
    assert json.loads(path.read_text()) == report
    for line in ("seen", "two_objects", "Judge", "Autoencoder", "Physics", "Diversity", "One clip takes"):
        assert line in ev.table(report)


def test_a_blank_model_scores_nothing_and_what_cannot_be_measured_is_absent():
    report = ev.evaluate(Blank(), n=6, splits=("held_out",))
    assert report["adherence"]["held_out"]["value"] == 0
    assert report["adherence"]["by_attribute"]["held_out"]["well_formed"]["value"] == 0
    assert report["judge"]["autoencoder"]["value"] == 0
    assert report["autoencoder"]["psnr"]["value"] < 20
    assert {figure["value"] for figure in report["physics"].values()} == {0}
    assert "diversity" not in report
    assert "Diversity" not in ev.table(report)


# ---- Tasks ----------------------------------------------------------------------------------------------


FROM_PIXELS = ("animate", "extend", "extend_backwards", "connect", "loop", "inpaint", "edit")


class Doing(Perfect):
    """Does the tasks: `change(given, mask)` is what it makes of a clip that it can see whole."""

    def __init__(self, change=lambda given, mask: given):
        super().__init__()
        self.config.tasks = ("text_to_video", *FROM_PIXELS)
        self.change = change

    def sample(self, prompts, seeds, *, given=None, mask=None, strength=None, **size):
        if given is None or strength is not None:
            return super().sample(prompts, seeds, **size)
        return self.change(given, mask)


def tasks_of(sora, n=12, names=FROM_PIXELS):
    sora.config.tasks = names  # and edits, which need no training
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 6, lambda *_: None)
    return ev._tasks(sampling, world.evaluation_set("seen", n, 0), 0)


def test_a_model_that_sees_what_is_hidden_does_every_task():
    report = tasks_of(Doing())
    assert tuple(report) == FROM_PIXELS
    for task, found in report.items():
        if task != "loop":  # what a clip of half its frames shows is for nobody to read
            assert found["adherence"]["value"] >= 0.9
        if task == "edit":
            continue
        assert found["given_psnr"]["value"] > 50 and found["given_psnr_autoencoder"]["value"] > 50
        assert found["seam_ratio"]["value"] == pytest.approx(1, abs=0.01)
    for task in ("animate", "extend", "extend_backwards", "connect"):
        assert report[task]["joint_error"]["value"] == pytest.approx(0, abs=0.01)
        assert report[task]["continued"]["value"] >= 0.9
    assert "joint_error" not in report["inpaint"]


def test_putting_given_pixels_back_hides_nothing_from_the_measures():
    """One that forgets what it was given: the clip that is shown is right there, the figures are not."""
    found = tasks_of(Doing(lambda given, mask: given * mask), 4, ("extend",))["extend"]
    assert found["given_psnr"]["value"] < 25 < found["given_psnr_autoencoder"]["value"]


def test_a_frozen_continuation_is_found_out():
    def freeze(given, mask):
        return torch.where(mask[:, :1, :1] > 0, given[:, :, 8:9], given)

    found = tasks_of(Doing(freeze), 24, ("extend",))["extend"]
    assert found["seam_ratio"]["value"] < 0.05
    assert found["continued"]["value"] < 0.4


def test_a_jump_at_the_seam_is_found_out():
    def jump(given, mask):
        return torch.where(mask[:, :1, :1] > 0, given.roll(4, dims=-1), given)

    found = tasks_of(Doing(jump), 24, ("extend",))["extend"]
    assert found["seam_ratio"]["value"] > 2
    assert found["continued"]["value"] == 0


def test_a_seam_is_where_given_meets_made():
    mask = torch.zeros(4, 4, 4)
    mask[2:] = 1
    video = torch.arange(4.0)[:, None, None].expand(3, 4, 4, 4) ** 2
    assert ev.seam(video, mask) == 3  # from frame 1 to frame 2
    box = torch.zeros(4, 4, 4)
    box[:, :, 2:] = 1
    across = torch.arange(4.0).expand(3, 4, 4, 4) * 5
    assert ev.seam(across, box) == 5
    assert ev.seam(video, box) == 0
    assert ev.seam(video, torch.ones(4, 4, 4)) == 0
    assert ev.beside_seams(mask) == [2]
    assert ev.beside_seams(box) == []


def test_the_joint_error_is_in_pixels():
    entry = world.evaluation_set("seen", 1, 0)[0]
    clip = world.render(entry.scene)
    moved = judge(clip.roll(3, dims=-1))
    assert ev.joint_error(moved, judge(clip), [4, 5], 64) == pytest.approx(3, abs=0.2)
    assert ev.joint_error(judge(torch.zeros_like(clip)), judge(clip), [4], 64) is None


def test_a_new_colour_is_never_a_held_out_one():
    for seed, entry in enumerate(world.evaluation_set("seen", 40, 1)):
        wanted = ev.recoloured(entry, seed)
        before, after = entry.scene.things[0], wanted.scene.things[0]
        assert after.colour != before.colour
        assert (after.shape, after.colour) not in world.HELD_OUT_COLOURS
        assert (after.shape, after.motion, after.size) == (before.shape, before.motion, before.size)
        assert wanted.asked == world.parse(wanted.prompt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0 must be"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"batch": 0}, "batch=0 must be"),
        ({"splits": ("seen", "unseen")}, "must be some of: seen, held_out"),
        ({"splits": ()}, "must be some of"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ev.evaluate(Perfect(), **options)


# ---- Sets of clips ----------------------------------------------------------------------------------------


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
    assert ev.frechet(one, two) == pytest.approx(theirs, rel=1e-6)
    assert ev.frechet(two, one) == pytest.approx(theirs, rel=1e-6)
    assert ev.frechet(one, one) == pytest.approx(0, abs=1e-5)


def test_the_frechet_distance_of_shifted_and_scaled_sets_is_known():
    x = correlated(500, 4, 3)
    assert ev.frechet(x, x + 2) == pytest.approx(4 * 2**2, rel=1e-5)  # four means moved by 2
    spread = torch.cov(x.double().T).trace().item()
    mean = x.double().mean(0).square().sum().item()
    assert ev.frechet(x, 3 * x) == pytest.approx((3 - 1) ** 2 * (spread + mean), rel=1e-5)


def test_fewer_samples_than_features_still_give_a_number_and_a_larger_one():
    x = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    few, many = ev.frechet(x[:8], x[8:16]), ev.frechet(x[:2000], x[2000:])
    assert few > 10 * many >= 0


def test_sets_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="two or more"):
        ev.frechet(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="as many features"):
        ev.frechet(torch.zeros(5, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="not finite"):
        ev.frechet(torch.full((5, 3), math.nan), torch.zeros(5, 3))


def test_the_ratio_is_the_models_distance_over_that_of_real_clips():
    """Shifted by 3 along one of four axes: 9; real clips through the autoencoder shifted by 2: 4."""
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    shift = torch.tensor([1.0, 0, 0, 0]).double()
    found = ev.frechet_figures(features + 3 * shift, features + 2 * shift, features)
    assert found["model"]["value"] == pytest.approx(9, abs=1e-4)
    assert found["floor"]["value"] == pytest.approx(4, abs=1e-4)
    assert found["ratio"] == {"value": pytest.approx(9 / 4, abs=1e-4), "n": 50, "ci95": None}


class Renders(Perfect):
    """Makes perfect clips, of a seed that `pick` chooses, with the autoencoder that ships."""

    def __init__(self, pick):
        super().__init__()
        self.autoencoder, self.pick = Sora.from_pretrained("tiny").autoencoder, pick

    def sample(self, prompts, seeds, **size):
        return super().sample(prompts, [self.pick(seed) for seed in seeds], **size)


def frechet_of(sora, n):
    done = []
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 16, lambda what, count: done.append(count))
    found = ev._frechet(sampling, n, 0)
    assert sum(done) == 3 * math.prod(ev._frechet_counts(n))
    return found


def test_real_clips_are_as_far_as_the_floor_and_one_clip_repeated_much_farther():
    """The clips that a model repeats are perfect ones, so that no reading of single clips finds it out."""
    real, repeated = frechet_of(Renders(lambda seed: seed), 48), frechet_of(Renders(lambda seed: 1), 48)
    assert real["floor"] == repeated["floor"] and real["ratio"]["n"] == 48
    assert real["ratio"]["value"] < 2
    assert repeated["ratio"]["value"] > 5


def test_without_an_encoder_for_its_latents_nothing_is_compared(monkeypatch):
    sora = Renders(lambda seed: seed)
    with torch.no_grad():
        next(sora.autoencoder.encoder.parameters()).add_(1)
    sampling = ev._Sampling(sora, (17, 64, 64), 4, 1.0, 16, lambda *_: None)
    assert ev._frechet(sampling, 32, 0) == {}
    monkeypatch.setattr(ev, "tiny_clip", lambda: (_ for _ in ()).throw(FileNotFoundError))
    assert ev._reader_of(Renders(lambda seed: seed)) is None


def test_features_come_in_order_whatever_the_batch():
    clips = torch.randn(7, 3, 5, 4, 4, generator=torch.Generator().manual_seed(0))

    def network(videos):
        assert len(videos) <= 3
        return videos.flatten(2).mean(2)

    assert torch.allclose(ev.features_of(network, iter(clips), batch=3), clips.flatten(2).mean(2), atol=1e-6)
    with pytest.raises(ValueError, match="empty"):
        ev.features_of(network, [])
    with pytest.raises(ValueError, match="a vector for each"):
        ev.features_of(lambda videos: videos.mean(), clips)


def test_the_clip_score_is_the_mean_cosine_of_frames_in_per_cent():
    texts = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    frames = torch.tensor([[[3.0, 0.0], [1.0, 1.0]], [[0.0, -1.0], [0.0, 0.5]]])
    score = ev.clip_score(frames, texts)
    first, second = (1 + math.sqrt(0.5)) / 2, (0 + 1) / 2  # a cosine of -1 counts as 0
    assert score["value"] == pytest.approx(100 * (first + second) / 2)
    assert score["n"] == 2 and score["ci95"][0] < score["value"] < score["ci95"][1]
    for pictures, others in ((frames, texts[:1]), (frames, torch.zeros(2, 3)), (frames[:, :0], texts)):
        with pytest.raises(ValueError, match="n, t, d"):
            ev.clip_score(pictures, others)
