"""The recipes: what each part of tiny Sora is trained on, and how long.

`tiny` trains the parts in order: the autoencoder, its decoder once more, the text encoder, then the
video DiT on cached latents (the text encoder learns on with it). Every recipe draws its scenes from
`world.training_scenes`, so no stage ever meets a held-out combination. A recipe that was stopped goes on
where it was.
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from tqdm import tqdm

from sora_edu.autoencoder import AutoencoderConfig, CausalVideoAutoencoder, reconstruction_loss
from sora_edu.data import world
from sora_edu.data.captions import VOCABULARY
from sora_edu.diffusion import add_noise, logit_normal_times, velocity
from sora_edu.precision import CPU, autocast, best_device, check_compiler
from sora_edu.sora import Sora, SoraConfig
from sora_edu.tasks import TASKS, encode_given, grey_out, latent_mask, training_mask
from sora_edu.text import (
    INITIAL_LOG_TEMPERATURE,
    LARGEST_LOG_TEMPERATURE,
    TextConfig,
    TextEncoder,
    contrastive_loss,
)
from sora_edu.train.loop import LoopConfig, Run, read_tensors, step_generator, write_tensors
from sora_edu.video_dit import VideoDiT, VideoDiTConfig
from sora_edu.weights import load_weights, save_weights

TINY = SoraConfig(
    AutoencoderConfig(),
    TextConfig(VOCABULARY, width=192, depth=2, heads=4),
    VideoDiTConfig(text_width=192, detail=64),
    tasks=TASKS,
    sizes=((17, 64, 64), (9, 64, 64), (1, 64, 64)),
    steps=30,
    guidance=3.0,
    shift=3.0,  # as in training, most steps go where a clip's content is settled
)
AUTOENCODER_LOOP = LoopConfig(
    steps=1500, batch=8, lr=2e-3, muon_lr=0.02, warmup=30, decay_from=0.3, ema=0.995
)
DECODER_LOOP = LoopConfig(
    steps=700, batch=8, lr=1e-3, muon_lr=0.01, warmup=30, decay_from=0.0, ema=0.995, seed=1
)
TEXT_LOOP = LoopConfig(steps=400, batch=128, lr=1e-3, warmup=50, ema=0.99)
DIT_LOOP = LoopConfig(steps=4800, batch=64, lr=1e-3, warmup=100, decay_from=0.5)
CLIPS, CHUNK = 16384, 1024  # in the cache of latents, and in each of its files
STILLS = 2  # pictures in the cache for each clip; they take a seventeenth of the rendering
ENCODED_AT_ONCE = 16
FRAMES, SIDE = 17, 64  # of a whole clip
CORE_FIRST = 0.75  # share of a DiT batch from the core of the world alone; the rest is from all of it
# Four frames share one latent frame, so what moves little between them is soon drawn well, and what turns or
# flies is not: the fourth version made 7 of 34 clips that spin, orbit, bounce or fall as asked, and 44 of 62
# others. A prompt says how things move, so to see some motions oftener teaches nothing false. By motion, how
# often a clip of the core is drawn; the others 1:
MOTION_WEIGHTS = {"spins": 3.0, "orbits": 3.0, "bounces": 2.5, "falls": 2.0}
# All 5,120 latents of a clip speak for the same handful of choices, so what it shows is settled while it is
# still nearly noise: a standard logit-normal draws one time in twelve above 0.8, one of mean 1.2 more than
# four in ten. How it looks in detail is settled between 0.8 and 0.5: where the third version starts from a
# real clip with noise, 45 of 100 end up well formed and as asked from t = 0.9, 58 from 0.8, 93 from 0.5 (96
# clips). Up to then the second mean was 1.8, and half of all times lay above 0.8. By mean, the share of
# times drawn from it:
TIME_MEANS = {0.0: 0.3, 1.2: 0.7}
PROMPT_DROPOUT = 0.1  # share of clips that are learned without a prompt, for guidance
GIVEN = 0.35  # share of whole clips of which some pixels are given
GIVEN_PROMPT_DROPOUT = 0.4  # of those, the share without a prompt: what is given says a lot
# Share of steps by latent frames: whole clips, clips of 9 frames, pictures. All batches have as many patches.
LENGTHS = {5: 0.75, 3: 0.05, 1: 0.2}
STATISTICS = 512  # clips whose latents give the mean and the deviation of each channel
FULL = {"colour", "shape", "size", "motion", "relation"}


def draw_seed(generator: torch.Generator) -> int:
    """A fresh seed for numpy's generators, drawn from torch's."""
    return int(torch.randint(2**31, (1,), generator=generator))


def draw_scenes(generator: torch.Generator, n: int) -> list[world.Scene]:
    """`n` training scenes."""
    return list(islice(world.training_scenes(draw_seed(generator)), n))


def _pick(shares: dict, n: int, generator: torch.Generator) -> list:
    """`n` of the keys, each as often as its share says."""
    chosen = torch.multinomial(torch.tensor(list(shares.values())), n, replacement=True, generator=generator)
    return [list(shares)[index] for index in chosen.tolist()]


# ---- Autoencoder -----------------------------------------------------------------------------------------


def hide_some(
    video: Float[Tensor, "b c t h w"], generator: torch.Generator, share: float = 0.15
) -> Float[Tensor, "b c t h w"]:
    """Some clips masked as for a task: the encoder will be shown such clips as conditions."""
    size = video.shape[2:]
    masks = [
        training_mask(*size, generator) if hidden else torch.zeros(size)
        for hidden in torch.rand(len(video), generator=generator) < share
    ]
    return grey_out(video, torch.stack(masks))


def _learn_to_reconstruct(model: CausalVideoAutoencoder, out: Path, loop: LoopConfig, title: str):
    """Runs a loop on clips of 17 frames of 64x64, rendered as it goes, and gives the averaged model."""
    run = Run(model.to(best_device()), loop, out)
    run.resume()

    def loss_at(generator):
        video = hide_some(world.render_batch(draw_scenes(generator, loop.batch)), generator)
        video = video.to(run.device)
        reconstruction, means = model.reconstruct_noisy(video, generator)
        # The posterior's width is fixed, so of its KL divergence only the squared mean is left.
        return reconstruction_loss(reconstruction, video) + 1e-3 * means.float().square().mean()

    return run.train(loss_at, title)


def train_autoencoder(out: Path, loop: LoopConfig = AUTOENCODER_LOOP) -> CausalVideoAutoencoder:
    """Trains the causal video autoencoder, and measures its latents' statistics."""
    torch.manual_seed(loop.seed)
    model = _learn_to_reconstruct(CausalVideoAutoencoder(TINY.autoencoder), out, loop, "autoencoder")
    model.set_statistics(encode_scenes(model, world.training_scenes(2), STATISTICS))
    save_weights(model, out / "autoencoder.safetensors")
    return model


def train_decoder(
    model: CausalVideoAutoencoder, out: Path, loop: LoopConfig = DECODER_LOOP
) -> CausalVideoAutoencoder:
    """Goes on with the decoder alone. The latents stay what they are, so the DiT can be trained meanwhile."""
    model = copy.deepcopy(model).train().requires_grad_(True)
    model.encoder.requires_grad_(False)
    model = _learn_to_reconstruct(model, out, loop, "decoder")
    save_weights(model, out / "autoencoder.safetensors")
    return model


@torch.no_grad()
def encode_scenes(
    model: CausalVideoAutoencoder,
    scenes: Iterable[world.Scene],
    n: int,
    title: str = "clips",
    frames: int = FRAMES,
    masks: Float[Tensor, "n frames height width"] | None = None,
) -> Float[Tensor, "n c t h w"] | tuple[Float[Tensor, "n c t h w"], Float[Tensor, "n c t h w"]]:
    """Renders and encodes the first `n` scenes; many are rendered by processes of their own.

    With masks, gives the latents of the clips and of the masked clips.
    """
    latents, given, workers = [], [], 0 if n < 256 else (os.cpu_count() or 1) - 1
    videos = DataLoader(
        list(islice(scenes, n)), ENCODED_AT_ONCE, num_workers=workers,
        collate_fn=partial(world.render_batch, frames=frames),
    )  # fmt: skip
    bar = tqdm(videos, f"encoding {title}", unit_scale=ENCODED_AT_ONCE, unit="clip", mininterval=2)
    for number, video in enumerate(bar):
        video = video.to(model.device)
        with autocast(device=model.device):
            latents.append(model.encode(video).float().cpu())
            if masks is not None:
                mask = masks[number * ENCODED_AT_ONCE :][: len(video)].to(model.device)
                given.append(encode_given(model, video, mask).float().cpu())
    return torch.cat(latents) if masks is None else (torch.cat(latents), torch.cat(given))


# ---- Text encoder ----------------------------------------------------------------------------------------


class TwoWordings(nn.Module):
    """The text encoder and the temperature of its contrastive loss."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.text = TextEncoder(config)
        self.log_temperature = nn.Parameter(torch.tensor(INITIAL_LOG_TEMPERATURE))

    def forward(self, prompts: list[str]) -> Float[Tensor, "b d"]:
        return self.text.pool(embed(self.text, prompts)[0]).float()


def embed(text: TextEncoder, prompts: list[str]):
    """Token vectors and mask, padded no further than the longest prompt of the batch."""
    ids, mask = (x.to(text.positions.device) for x in text.tokenizer.encode(prompts, length=None))
    return text(ids, mask), mask


def train_text(out: Path, loop: LoopConfig = TEXT_LOOP) -> TextEncoder:
    """Trains the text encoder to find, for each sentence, the other wording of its scene in the batch."""
    torch.manual_seed(loop.seed)
    run = Run(TwoWordings(TINY.text).to(best_device()), loop, out)
    run.resume()

    def loss_at(generator):
        scenes = draw_scenes(generator, loop.batch)
        one, other = ([world.caption(s, draw_seed(generator), "all") for s in scenes] for _ in range(2))
        temperature = run.model.log_temperature.clamp(max=LARGEST_LOG_TEMPERATURE)
        return contrastive_loss(run.model(one), run.model(other), temperature)

    model = run.train(loss_at, "text").text
    save_weights(model, out / "text.safetensors")
    return model


# ---- Video DiT -------------------------------------------------------------------------------------------


class TextToVideo(nn.Module):
    """The two parts that learn together in the last stage."""

    def __init__(self, config: SoraConfig):
        super().__init__()
        self.text, self.dit = TextEncoder(config.text), VideoDiT(config.dit)

    def loss(
        self,
        latents: Float[Tensor, "b c t h w"],
        prompts: list[str],
        generator: torch.Generator,
        given: Float[Tensor, "b c t h w"] | None = None,
        mask: Float[Tensor, "b 4 t h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the predicted velocity, at logit-normal times of either mean."""
        means = _pick(TIME_MEANS, len(latents), generator)
        t = logit_normal_times(len(latents), torch.tensor(means), generator=generator)
        t, noise = t.to(latents), torch.randn(latents.shape, generator=generator).to(latents)
        y, y_mask = embed(self.text, prompts)
        predicted = self.dit(add_noise(latents, noise, t), t, y, y_mask, given, mask)
        return (predicted.float() - velocity(latents, noise)).square().mean()


def training_prompt(scene: world.Scene, generator: torch.Generator, dropout: float = PROMPT_DROPOUT) -> str:
    """What a clip is learned with: nothing, a full description, or whatever the grammar likes to say."""
    dropped, full, background, camera = torch.rand(4, generator=generator).tolist()
    if dropped < dropout:
        return ""
    extra = {"background"} if background < 0.4 else {"camera"} if camera < 0.4 else set()
    return world.caption(scene, draw_seed(generator), FULL | extra if full < 0.6 else None)


@dataclass(frozen=True)
class Examples:
    """Latents to learn from, in half precision."""

    scenes: list[world.Scene]
    """What they show."""
    latents: Float[Tensor, "n c t h w"]
    """Of the whole clips."""
    given: Float[Tensor, "n c t h w"] | None
    """Of the same clips, masked; None for pictures, of which nothing is ever given."""
    mask: Float[Tensor, "n 4 t h w"] | None
    """Their masks, as the network sees them."""

    @cached_property
    def _core(self) -> Float[Tensor, " n"]:
        """How often each is drawn from the core of the world."""
        weights = [
            MOTION_WEIGHTS.get(scene.things[0].motion, 1.0) if scene.is_core else 0.0 for scene in self.scenes
        ]
        return torch.tensor(weights)

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices, most of them from the core of the world."""
        anything = torch.randint(len(self.scenes), (count,), generator=generator)
        from_core = torch.multinomial(self._core, count, replacement=True, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < CORE_FIRST, from_core, anything)


def _fingerprint(model: CausalVideoAutoencoder, scenes: list[world.Scene], *shown: object) -> str:
    """Of what latents follow from: the weights that encode, the scenes, and what is shown of them."""
    digest = hashlib.sha256(repr((scenes, *shown)).encode())
    for tensor in (*model.encoder.state_dict().values(), model.mean, model.std):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def cached_examples(
    model: CausalVideoAutoencoder,
    folder: Path,
    scenes: list[world.Scene],
    frames: int = FRAMES,
    given: bool = True,
) -> Examples:
    """Latents of the scenes, in files of `CHUNK` clips; what a stop left is kept.

    Each clip has a mask of its own, the same at each visit, unless `given` is False: then nothing of it is
    given. A file of another encoder or other scenes is made anew. Raises ValueError if one is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(scenes), CHUNK):
        path, wanted = folder / f"{start:05d}.pt", scenes[start : start + CHUNK]
        masks = _masks(start, len(wanted), frames) if given and frames > 1 else None
        shown = (frames, start) if given else (frames, start, "whole")
        fingerprint = _fingerprint(model, wanted, *shown)
        kept = read_tensors(path, ("fingerprint", "latents")) if path.exists() else {"fingerprint": None}
        if kept["fingerprint"] != fingerprint:
            title = f"{'clips' if frames > 1 else 'pictures'} {start + 1} to {start + len(wanted)}"
            made = encode_scenes(model, wanted, len(wanted), title, frames, masks)
            tensors = {"latents": made} if masks is None else {"latents": made[0], "given": made[1]}
            kept = {"fingerprint": fingerprint, **{name: x.half() for name, x in tensors.items()}}
            write_tensors(path, kept)
        if masks is not None:
            kept["mask"] = latent_mask(masks).half()
        for name in kept.keys() - {"fingerprint"}:
            parts.setdefault(name, []).append(kept[name])
    whole = {name: torch.cat(tensors) for name, tensors in parts.items()}
    return Examples(scenes, whole["latents"], whole.get("given"), whole.get("mask"))


def _masks(start: int, n: int, frames: int) -> Float[Tensor, "n t h w"]:
    """One for each of `n` clips from the one with index `start` on."""
    return torch.stack([
        training_mask(frames, SIDE, SIDE, step_generator(2, index)) for index in range(start, start + n)
    ])  # fmt: skip


def train_dit(
    autoencoder: CausalVideoAutoencoder,
    start: dict[str, nn.Module],
    out: Path,
    loop: LoopConfig = DIT_LOOP,
    clips: int = CLIPS,
    compiled: bool = False,
) -> TextToVideo:
    """Trains the video DiT, and the text encoder with it, on cached latents: every task and every length.

    `start` holds the parts that do not start from scratch, by name: "text", and "dit" when a training goes on
    from a checkpoint that was kept. `compiled`: torch.compile compiles what the DiT repeats.
    """
    torch.manual_seed(loop.seed)
    model = TextToVideo(TINY)
    for name, part in start.items():
        model.get_submodule(name).load_state_dict(part.state_dict())
    run = Run(model.to(best_device()), loop, out)
    run.resume()
    for part in model.dit.repeated() if compiled else ():
        part.compile(dynamic=False)  # once for each length of clips
    autoencoder = autoencoder.to(run.device)
    shown = list(islice(world.training_scenes(1), clips))
    whole = cached_examples(autoencoder, out / "latents", shown)
    shown = list(islice(world.training_scenes(3), STILLS * clips))
    pictures = cached_examples(autoencoder, out / "pictures", shown, frames=1)

    def loss_at(generator):
        (length,) = _pick(LENGTHS, 1, generator)
        examples = pictures if length == 1 else whole
        chosen = examples.draw(loop.batch * max(LENGTHS) // length, generator)
        latents = examples.latents[chosen][:, :, :length].to(run.device).float()
        if length < max(LENGTHS):
            prompts = [training_prompt(examples.scenes[i], generator) for i in chosen.tolist()]
            return run.model.loss(latents, prompts, generator)
        shown = torch.rand(len(chosen), generator=generator) < GIVEN
        dropout = torch.where(shown, GIVEN_PROMPT_DROPOUT, PROMPT_DROPOUT).tolist()
        prompts = [
            training_prompt(examples.scenes[i], generator, share)
            for i, share in zip(chosen.tolist(), dropout, strict=True)
        ]
        shown = shown[:, None, None, None, None]
        given = torch.where(shown, examples.given[chosen].float(), 0.0).to(run.device)
        mask = torch.where(shown, examples.mask[chosen].float(), 1.0).to(run.device)
        return run.model.loss(latents, prompts, generator, given, mask)

    # At some eighty tokens the plain kernel's backward pass is faster on a CPU than the fused one's.
    with sdpa_kernel(SDPBackend.MATH) if run.device == CPU else nullcontext():
        return run.train(loss_at, "video DiT")


# ---- All together ----------------------------------------------------------------------------------------


def _finished(model: nn.Module, folder: Path, train: Callable[[], nn.Module]) -> nn.Module:
    """The part from its folder if its stage is done, else trained."""
    done = next(folder.glob("*.safetensors"), None)
    if done is None:
        return train()
    load_weights(model, done)
    return model.eval()


def train_tiny(
    out: Path,
    loop: LoopConfig = DIT_LOOP,
    clips: int = CLIPS,
    start: Path | None = None,
    compiled: bool = False,
) -> Sora:
    """Trains all of tiny Sora in order and writes the checkpoint to `out`/checkpoint.

    With `start`, a checkpoint such as data/checkpoints/tiny, the stages before the DiT are taken from it and
    the DiT goes on from its weights, with fresh optimisers. With `compiled`, torch.compile compiles the DiT's
    parts: a minute at first, then faster steps. Raises ValueError where there is no compiler.
    """
    if compiled:
        check_compiler(best_device())  # now, and not after half an hour of other stages
    sora = Sora(TINY)
    if start is None:
        first, better = out / "autoencoder", out / "decoder"
        autoencoder = _finished(sora.autoencoder, first, lambda: train_autoencoder(first))
        decoder = _finished(copy.deepcopy(autoencoder), better, lambda: train_decoder(autoencoder, better))
        parts = {"text": _finished(sora.text, out / "text", lambda: train_text(out / "text"))}
    else:
        kept = Sora.from_pretrained(start)
        autoencoder = decoder = kept.autoencoder
        parts = {"text": kept.text, "dit": kept.dit}
    trained = train_dit(autoencoder.eval(), parts, out / "dit", loop, clips, compiled)
    for name, part in (("autoencoder", decoder), ("text", trained.text), ("dit", trained.dit)):
        sora.get_submodule(name).load_state_dict(part.state_dict())
    sora.save_pretrained(out / "checkpoint")
    return sora


RECIPES = {
    "autoencoder": (train_autoencoder, AUTOENCODER_LOOP),
    "text": (train_text, TEXT_LOOP),
    "tiny": (train_tiny, DIT_LOOP),
}
FULL_SIZE, CLIP = "full-size", "clip"
NAMES = (*RECIPES, CLIP, FULL_SIZE)
"""Of all recipes."""
OPTIONS = {
    "tiny": ("start", "clips", "compiled"),
    CLIP: ("clips",),
    FULL_SIZE: (
        *("config", "data", "clips", "frames", "side", "encoders"),
        *("save_every", "accumulate", "checkpointing", "compiled"),
    ),
}
"""By recipe, what only some of them take, beside steps and batch."""


def run(
    name: str,
    out: Path | None = None,
    resume: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    **extra,
) -> None:
    """Runs a recipe into a folder, `runs/NAME` by default, going on where it was if it was stopped there.

    Args:
        name: of the recipe: one of `NAMES`.
        out: the folder.
        resume: another word for it, where it must be that of a stopped run.
        steps, batch: of the last stage, instead of the recipe's.
        extra: what only some recipes take, see `OPTIONS`: those of `train_tiny` and `train_full_size`. None
            stands for the recipe's own.

    Raises:
        ValueError: what does not fit.
    """
    if name not in NAMES:
        raise ValueError(f"recipe {name!r} is unknown; use one of: {', '.join(NAMES)}")
    if resume is not None and not Path(resume).is_dir():
        raise ValueError(f"resume={str(resume)!r} is no folder of a run; leave it out to start afresh")
    extra = {key: value for key, value in extra.items() if value is not None}
    counts = {key: value for key, value in (("steps", steps), ("batch", batch)) if value is not None}
    for key, value in {**counts, **extra}.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{key}={value} must be a whole number of at least 1")
    if foreign := [key for key in extra if key not in OPTIONS.get(name, ())]:
        homes = [recipe for recipe, own in OPTIONS.items() if set(foreign) <= set(own)]
        raise ValueError(
            f"{' and '.join(foreign)}: for the recipe {' or '.join(homes)} alone; leave it out for {name}"
        )
    folder = Path(resume or out or Path("runs") / name)
    if name == FULL_SIZE:
        from sora_edu.train.full_size import train_full_size  # which takes its toy clips from here

        train_full_size(folder, **counts, **extra)
        return
    if name == CLIP:
        from sora_edu.train.clip import CLIP_LOOP, train_clip  # which takes its latents from here

        train, loop = train_clip, CLIP_LOOP
    else:
        train, loop = RECIPES[name]
    train(folder, replace(loop, **counts), **extra)
