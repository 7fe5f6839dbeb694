"""Exercises of chapter 00: sizes of latents and tokens, compression, length, adherence, who said what."""

import math
import random

import numpy as np
import torch

from sora_edu.autoencoder import AutoencoderConfig, CausalVideoAutoencoder
from sora_edu.data.catalogues import load_claims
from sora_edu.patches import patchify_video
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "00_from_prompt_to_video"

_SMALL = AutoencoderConfig(widths=(2, 2, 2), encoder_blocks=(0, 0), decoder_blocks=(0, 0, 0))


def _clip_sizes(seed: int) -> list[tuple[int, int, int]]:
    """Clips of the learner's first examples, and one at random whose three numbers all differ."""
    rng = random.Random(seed)
    frames, height = 1 + 4 * rng.randint(2, 5), 16 * rng.randint(2, 4)
    return [(17, 64, 64), (1, 64, 64), (33, 48, 80), (frames, height, height + 16 * rng.randint(1, 3))]


def _encoded(frames: int, height: int, width: int) -> torch.Tensor:
    """What an autoencoder of the course's kind really makes of such a clip; its numbers mean nothing."""
    with torch.no_grad():
        return CausalVideoAutoencoder(_SMALL).encode(torch.zeros(1, 3, frames, height, width))[0]


# --- latent_shape ----------------------------------------------------------------------------------------


def latent_shape(frames: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Shape (channels, time, height, width) of the latents of a clip; frames is 1 + 4k."""
    return 16, 1 + (frames - 1) // 4, height // 8, width // 8


def _latent_oracle(frames: int, height: int, width: int) -> tuple[int, ...]:
    return tuple(_encoded(frames, height, width).shape)


LATENT_SHAPE = Exercise(
    id="overview.latent_shape",
    chapter=CHAPTER,
    title="The size of the latents",
    minutes=5,
    difficulty=1,
    reference=latent_shape,
    oracle=_latent_oracle,
    cases=lambda seed: [Case(*size) for size in _clip_sizes(seed)],
    properties=(
        Property(
            "four more frames are one more latent frame",
            lambda f: f(21, 64, 64)[1] - f(17, 64, 64)[1] == 1,
        ),
    ),
    hints=Hints(
        "How many latent frames does a single picture have?",
        "Time first: the first frame stands alone, the others go in fours. Then the two sides.",
        "(16, 1 + (F - 1) / 4, H / 8, W / 8)",
    ),
    misconceptions=(
        Misconception(
            id="no_first_frame",
            title="the first frame is forgotten: time is divided by four and no more",
            wrong=lambda frames, height, width: (16, frames // 4, height // 8, width // 8),
            hints=Hints(
                "What does your function say about a clip of one frame?",
                "The second of the four numbers: which frame has a latent frame to itself?",
                "T' = 1 + (F - 1) / 4",
            ),
            section="Count what flows",
            evidence=(
                "zai-org/CogVideo issues 102 and 547 and PKU-YuanGroup/WF-VAE issue 11: clips of 16 or 40"
                " frames"
                " handed to autoencoders that take the first frame apart and need 4k + 1."
            ),
        ),
        Misconception(
            id="time_kept",
            title="every frame keeps a latent frame of its own; only the sides shrink",
            wrong=lambda frames, height, width: (16, frames, height // 8, width // 8),
            hints=Hints(
                "An autoencoder for pictures would do that. What does one for video do with time?",
                "The second of the four numbers.",
                "T' = 1 + (F - 1) / 4",
            ),
            section="Count what flows",
            evidence=(
                "SkyworkAI/SkyReels-V1 pull request 90: 49 pixel frames joined with 13 latent frames; the"
                " video"
                " models with an image autoencoder (Open-Sora 1.0) really did keep time."
            ),
        ),
        Misconception(
            id="time_by_eight",
            title="time is taken to shrink eightfold, like the sides",
            wrong=lambda frames, height, width: (16, 1 + (frames - 1) // 8, height // 8, width // 8),
            hints=Hints(
                "How many frames does a latent frame stand for, and how many pixels does a cell stand for?",
                "Two of your divisors should differ.",
                "T' = 1 + (F - 1) / 4, but H' = H / 8",
            ),
            section="Count what flows",
            evidence=(
                "PKU-YuanGroup/Open-Sora-Plan issue 390 and zai-org/CogVideo issue 518 ask why 4x8x8 and"
                " not 8 each"
                " way; Lightricks/LTX-Video issue 122: its autoencoder does take 8k + 1, so habits do not"
                " carry over."
            ),
        ),
        Misconception(
            id="time_first",
            title="time stands before the channels; here channels come first",
            wrong=lambda frames, height, width: (1 + (frames - 1) // 4, 16, height // 8, width // 8),
            hints=Hints(
                "Which of your first two numbers would change for a longer clip?",
                "The order of the four numbers, in the table of notation.",
                "c t h w",
            ),
            section="Notation",
            evidence=(
                "zai-org/CogVideo issue 250 (a convolution for 16 channels is given 2) and review of"
                " diffusers pull"
                " request 13745: b c t h w and b t c h w live side by side."
            ),
        ),
        Misconception(
            id="sides_swapped",
            title="width and height have changed places",
            wrong=lambda frames, height, width: (16, 1 + (frames - 1) // 4, width // 8, height // 8),
            hints=Hints(
                "Try a clip that is wider than it is high. Which of the last two numbers is larger?",
                "The order of the last two numbers.",
                "c t h w: height before width",
            ),
            section="Notation",
            evidence=(
                "cumulo-autumn/StreamDiffusion issue 14 and pull request 79, kijai/ComfyUI-KJNodes issue"
                " 527: width"
                " and height swapped; on square clips nobody notices."
            ),
        ),
        Misconception(
            id="three_channels",
            title="latents are taken to have the three channels of a picture",
            wrong=lambda frames, height, width: (3, 1 + (frames - 1) // 4, height // 8, width // 8),
            hints=Hints(
                "Latents are no small colour pictures. How many numbers has one cell?",
                "The first of the four numbers: look at the latents' shape printed in this chapter.",
                "C = 16",
            ),
            section="Count what flows",
            evidence=(
                "Reasoning slip: “a smaller picture” suggests red, green and blue, which latents do not have."
            ),
        ),
    ),
    correct_alternatives=(
        lambda frames, height, width: (16, math.ceil(frames / 4), height // 8, width // 8),
        lambda frames, height, width: (16, 1 + frames // 4, height >> 3, width >> 3),
    ),
    equivalent_mutants={
        "frames - 1 -> frames + 1": "for 1 + 4k frames, (frames + 1) // 4 is k as well",
    },
)


# --- token_count -----------------------------------------------------------------------------------------


def token_count(frames: int, height: int, width: int) -> int:
    """How many tokens the transformer sees: patches of 2x2 cells of each latent frame."""
    _, t, h, w = latent_shape(frames, height, width)
    return t * (h // 2) * (w // 2)


def _token_oracle(frames: int, height: int, width: int) -> int:
    return patchify_video(_encoded(frames, height, width)[None], (1, 2, 2)).shape[1]


TOKEN_COUNT = Exercise(
    id="overview.token_count",
    chapter=CHAPTER,
    title="How many tokens?",
    minutes=5,
    difficulty=1,
    reference=token_count,
    oracle=_token_oracle,
    cases=lambda seed: [Case(*size) for size in _clip_sizes(seed)],
    properties=(
        Property("twice as wide means twice as many tokens", lambda f: f(17, 64, 128) == 2 * f(17, 64, 64)),
    ),
    hints=Hints(
        "How many pixels wide is one token, counted through the autoencoder?",
        "Start from the shape of the latents; a token is 2 cells high, 2 wide, and 1 latent frame deep.",
        "N = T' (H / 16) (W / 16)",
    ),
    misconceptions=(
        Misconception(
            id="patch_times_patch",
            title="N = P x P is read as the number of tokens; P is the side of a patch",
            wrong=lambda frames, height, width: (1 + (frames - 1) // 4) * 2 * 2,
            hints=Hints(
                "Does your count grow when the clip gets wider?",
                "P is how large a patch is. How many such patches fit?",
                "N = T' (H' / P) (W' / P)",
            ),
            section="Count what flows",
            evidence="The deck prints N = PxP for the number of patches; N = HW / P^2 is meant.",
        ),
        Misconception(
            id="one_side_only",
            title="the number of cells is divided by 2 once, not once for each side",
            wrong=lambda frames, height, width: (1 + (frames - 1) // 4) * (height // 8) * (width // 8) // 2,
            hints=Hints(
                "How many cells does one patch hold?",
                "The division by the patch: a patch has two sides.",
                "N = T' H' W' / (2 * 2)",
            ),
            section="Count what flows",
            evidence=(
                "Reasoning slip: 'patches of 2' is read as one division by 2; a patch is two cells high and"
                " two wide."
            ),
        ),
        Misconception(
            id="patches_of_pixels",
            title="the patches are cut from the pixels; they are cut from the latents",
            wrong=lambda frames, height, width: frames * (height // 2) * (width // 2),
            hints=Hints(
                "Your number is large. Which part of the machine stands between the pixels and the patches?",
                "What you divide: frames and pixels, or latent frames and cells?",
                "N = T' (H / 8 / 2) (W / 8 / 2)",
            ),
            section="Count what flows",
            evidence=(
                "crowsonkb/k-diffusion issue 107: through the autoencoder DiT's patch of 2 is 16 pixels"
                " wide, which"
                " the question overlooked."
            ),
        ),
        Misconception(
            id="one_frame",
            title="the tokens of one latent frame are counted, not those of the clip",
            wrong=lambda frames, height, width: (height // 16) * (width // 16),
            hints=Hints(
                "Has a longer clip more tokens?",
                "The product lacks a factor.",
                "N = T' (H / 16) (W / 16)",
            ),
            section="Count what flows",
            evidence=(
                "Reasoning slip: the formula of the Vision Transformer, which has no time, carried over."
            ),
        ),
        Misconception(
            id="cells",
            title="every latent cell is taken for a token; a token is a patch of 2x2 cells",
            wrong=lambda frames, height, width: (1 + (frames - 1) // 4) * (height // 8) * (width // 8),
            hints=Hints(
                "What is a token: a cell, or a patch of cells?",
                "One more division, for each side.",
                "N = T' (H' / 2) (W' / 2)",
            ),
            section="Count what flows",
            evidence=(
                "svg-project/Sparse-VideoGen issue 2: a reader cannot see where 4080 tokens a frame come"
                " from; the answer, (768 // 16) * (1360 // 16), has the autoencoder's 8 and the patch's 2 in"
                " one number."
            ),
        ),
    ),
    correct_alternatives=(
        lambda frames, height, width: (frames + 3) // 4 * (height // 16) * (width // 16),
        lambda frames, height, width: math.ceil(frames / 4) * height * width // 256,
    ),
)


# --- compression -----------------------------------------------------------------------------------------


def compression(frames: int, height: int, width: int) -> float:
    """How many numbers of the clip one number of its latents stands for."""
    c, t, h, w = latent_shape(frames, height, width)
    return (3 * frames * height * width) / (c * t * h * w)


def _compression_oracle(frames: int, height: int, width: int) -> float:
    return torch.zeros(3, frames, height, width).numel() / _encoded(frames, height, width).numel()


COMPRESSION = Exercise(
    id="overview.compression",
    chapter=CHAPTER,
    title="How much smaller?",
    minutes=5,
    difficulty=1,
    reference=compression,
    oracle=_compression_oracle,
    cases=lambda seed: [Case(*size) for size in _clip_sizes(seed)],
    properties=(
        Property("the size of the picture does not matter", lambda f: f(17, 64, 64) == f(17, 128, 96)),
        Property("a longer clip is compressed more", lambda f: f(33, 64, 64) > f(17, 64, 64)),
    ),
    hints=Hints(
        "How many numbers does the clip hold, and how many do the latents hold?",
        "Count all numbers on both sides: colours and channels too.",
        "3 F H W / (C T' H' W')",
    ),
    misconceptions=(
        Misconception(
            id="cells_for_numbers",
            title="pixels are compared with cells; a pixel has 3 numbers and a cell has 16",
            wrong=lambda frames, height, width: (
                frames * height * width / ((1 + (frames - 1) // 4) * (height // 8) * (width // 8))
            ),
            hints=Hints(
                "How many numbers has a pixel, and how many has a cell?",
                "Both products lack a factor.",
                "3 F H W / (16 T' H' W')",
            ),
            section="Count what flows",
            evidence=(
                "fastai/diffusion-nbs pull request 2 repairs a lesson that counted places and left out"
                " channels:"
                " the factor there is 48."
            ),
        ),
        Misconception(
            id="upside_down",
            title="the ratio stands upside down: latents over clip",
            wrong=lambda frames, height, width: 1 / compression(frames, height, width),
            hints=Hints(
                "Should “how many times smaller” be more or less than 1?",
                "Numerator and denominator.",
                "numbers of the clip / numbers of the latents",
            ),
            section="Count what flows",
            evidence="Reasoning slip: the fraction is written in the order of the question, latents to clip.",
        ),
        Misconception(
            id="no_first_frame",
            title="4 x 8 x 8 x 3 / 16 for every clip: the first frame, which is not shared, is forgotten",
            wrong=lambda frames, height, width: 4 * 8 * 8 * 3 / 16,
            hints=Hints(
                "Is a single picture compressed as much as a long clip?",
                "The first latent frame stands for how many frames?",
                "T' = 1 + (F - 1) / 4, so the ratio depends on F",
            ),
            section="Count what flows",
            evidence=(
                "westlake-repl/LeanVAE issue 7: the first frame is compressed 1x8x8, the rest 4x8x8, which"
                " 4x8x8 as a"
                " headline hides."
            ),
        ),
        Misconception(
            id="grey",
            title="the clip's pixels are counted once; each has three colours",
            wrong=lambda frames, height, width: compression(frames, height, width) / 3,
            hints=Hints(
                "How many numbers does one pixel hold?",
                "The numerator.",
                "3 F H W / (16 T' H' W')",
            ),
            section="Count what flows",
            evidence=(
                "cloneofsimo/vqgan-training issue 2 argues about compression from a count; one factor more"
                " or less"
                " turns the conclusion round."
            ),
        ),
    ),
    correct_alternatives=(
        lambda frames, height, width: 12 * frames / (1 + (frames - 1) // 4),
        lambda frames, height, width: (
            math.prod((3, frames, height, width)) / math.prod(latent_shape(frames, height, width))
        ),
    ),
)


# --- frames_for ------------------------------------------------------------------------------------------


def frames_for(seconds: float) -> int:
    """The fewest frames, of the form 1 + 4k, that last at least so long at 8 frames a second."""
    return 1 + 4 * max(0, math.ceil((8 * seconds - 1) / 4))


def _frames_oracle(seconds: float) -> int:
    return next(frames for frames in range(1, 10_000, 4) if frames / 8 >= seconds)


def _frames_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    return [Case(2.0), Case(1.0), Case(60.0), Case(2.125), Case(0.1), Case(rng.randint(40, 160) / 16)]


FRAMES_FOR = Exercise(
    id="overview.frames_for",
    chapter=CHAPTER,
    title="How many frames for so many seconds?",
    minutes=8,
    difficulty=2,
    reference=frames_for,
    oracle=_frames_oracle,
    cases=_frames_cases,
    properties=(
        Property("the number of frames is 1 + 4k", lambda f: all(f(s / 3) % 4 == 1 for s in range(1, 40))),
        Property("the clip is long enough", lambda f: all(f(s / 3) / 8 >= s / 3 for s in range(1, 40))),
    ),
    hints=Hints(
        "How long do 17 frames last at 8 frames a second?",
        "First the frames that are needed, 8 s; then the next number of the form 1 + 4k.",
        "1 + 4 ceil((8 s - 1) / 4), and never fewer than 1",
    ),
    misconceptions=(
        Misconception(
            id="any_number",
            title="the frames are counted right, but the autoencoder does not take that number",
            wrong=lambda seconds: max(1, math.ceil(8 * seconds)),
            hints=Hints(
                "Which numbers of frames does the machine take?",
                "After rounding up, go on to the next number that has a whole number of latent frames.",
                "F = 1 + 4k",
            ),
            section="Count what flows",
            evidence=(
                "PKU-YuanGroup/WF-VAE issue 16, diffusers issue 11163: 10, 20 or 15 frames handed to a"
                " model that"
                " takes 4k + 1."
            ),
        ),
        Misconception(
            id="multiple_of_four",
            title="a multiple of four is given; the first frame comes on top",
            wrong=lambda seconds: 4 * math.ceil(8 * seconds / 4),
            hints=Hints(
                "How many latent frames would 16 frames have?",
                "Which frame stands outside the fours?",
                "F = 1 + 4k",
            ),
            section="Count what flows",
            evidence="zai-org/CogVideo issue 547: 16 frames come out wrong where 17 come out right.",
        ),
        Misconception(
            id="gaps_counted",
            title="the gaps between frames are counted: F - 1 frames' worth of time",
            wrong=lambda seconds: 1 + 4 * math.ceil(8 * seconds / 4),
            hints=Hints(
                "Each frame is seen for an eighth of a second. The last one too?",
                "How long does a clip of one frame last?",
                "a clip of F frames lasts F / 8 seconds",
            ),
            section="Count what flows",
            evidence=(
                "Slush0Puppy/retime issue 4: 42 frames or the 41 gaps between them; both are defended in"
                " the thread."
            ),
        ),
        Misconception(
            id="rounded_down",
            title="rounding goes down, so the clip is too short",
            wrong=lambda seconds: 1 + 4 * max(0, math.floor((8 * seconds - 1) / 4)),
            hints=Hints(
                "How long is your clip for 2.5 seconds?",
                "The rounding: the fewest frames that last *at least* so long.",
                "1 + 4 ceil((8 s - 1) / 4)",
            ),
            section="Count what flows",
            evidence=(
                "prasanaworld/puppeteer-screen-recorder pull request 72: floor() there made recordings too"
                " short."
            ),
        ),
    ),
    correct_alternatives=(
        lambda seconds: next(f for f in range(1, 10_000, 4) if f >= 8 * seconds),
        lambda seconds: max(1, math.ceil(8 * seconds)) + (1 - max(1, math.ceil(8 * seconds))) % 4,
    ),
)


# --- adherence -------------------------------------------------------------------------------------------


def adherence(clips: list[dict[str, bool]]) -> float:
    """The share of clips in which everything that the prompt names is right."""
    return sum(all(clip.values()) for clip in clips) / len(clips)


def _adherence_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    names = ("colour", "shape", "size", "motion")
    first = [
        dict.fromkeys(names, True),
        {**dict.fromkeys(names, True), "shape": False},
        dict.fromkeys(names, False),
        {"colour": True, "shape": True},
    ]
    clips = [{name: rng.random() < 0.7 for name in rng.sample(names, rng.randint(2, 4))} for _ in range(12)]
    return [Case(first), Case([*clips, *first])]


def _adherence_oracle(clips: list[dict[str, bool]]) -> float:
    worst = np.array([min(map(int, clip.values())) for clip in clips])
    return float(worst.mean())


def _drops_failures(clips):
    readable = [clip for clip in clips if any(clip.values())]
    return sum(all(clip.values()) for clip in readable) / len(readable)


ADHERENCE = Exercise(
    id="overview.adherence",
    chapter=CHAPTER,
    title="Did it do as asked?",
    minutes=6,
    difficulty=2,
    reference=adherence,
    oracle=_adherence_oracle,
    cases=_adherence_cases,
    properties=(
        Property(
            "one wrong word in every clip means 0",
            lambda f: f([{"colour": True, "shape": False}, {"colour": False, "shape": True}]) == 0,
        ),
        Property("all right means 1", lambda f: f([{"colour": True}, {"shape": True}]) == 1),
    ),
    hints=Hints(
        "A red circle was made where a red star was asked for. Is that clip half right, or wrong?",
        "First one verdict for each clip; only then a share over clips.",
        "(number of clips whose values are all True) / (number of clips)",
    ),
    misconceptions=(
        Misconception(
            id="share_of_words",
            title=(
                "words are averaged where clips should be: three words out of four right is still a wrong"
                " clip"
            ),
            wrong=lambda clips: float(np.mean([value for clip in clips for value in clip.values()])),
            hints=Hints(
                "With 90 % right on each of four words, how many clips are right altogether?",
                "What do you average over?",
                "all() inside a clip, the mean over clips",
            ),
            section="Does it work?",
            evidence=(
                "djghosh13/geneval issue 21 and its kind: correct images and an average over tasks stand"
                " in one"
                " summary and are quoted for one another."
            ),
        ),
        Misconception(
            id="mean_of_shares",
            title="each clip is given a share of its words; it should be right or wrong",
            wrong=lambda clips: float(np.mean([np.mean(list(clip.values())) for clip in clips])),
            hints=Hints(
                "What does a clip count that has the right colour and the wrong shape?",
                "The verdict on one clip.",
                "all() inside a clip, the mean over clips",
            ),
            section="Does it work?",
            evidence=(
                "Partial credit is a habit from marking; GenEval's published rule is that every part of a"
                " prompt"
                " has to be right."
            ),
        ),
        Misconception(
            id="any_word",
            title="one right word makes a clip count",
            wrong=lambda clips: sum(any(clip.values()) for clip in clips) / len(clips),
            hints=Hints(
                "Is a red circle a red star?",
                "any() or all()?",
                "all() inside a clip, the mean over clips",
            ),
            section="Does it work?",
            evidence="Reasoning slip: any() for all().",
        ),
        Misconception(
            id="failures_dropped",
            title="clips in which nothing was read are left out, which flatters the model",
            wrong=_drops_failures,
            hints=Hints(
                "By how many clips do you divide?",
                "The denominator: a clip that shows nothing is a failure, not a missing value.",
                "divide by len(clips)",
            ),
            section="Does it work?",
            evidence=(
                "abundant-ai/swe-marathon pull request 242: samples that cannot be scored fall out of the"
                " denominator,"
                " and the figure rises."
            ),
        ),
        Misconception(
            id="per_cent",
            title="the share is given in per cent; a share lies between 0 and 1",
            wrong=lambda clips: 100 * adherence(clips),
            hints=Hints(
                "Can a share be larger than 1?",
                "The factor at the end.",
                "a number between 0 and 1",
            ),
            section="Does it work?",
            evidence="GenEval prints per cent for images and a fraction for the overall score, side by side.",
        ),
    ),
    correct_alternatives=(
        lambda clips: float(np.mean([all(clip.values()) for clip in clips])),
        lambda clips: 1 - len([clip for clip in clips if False in clip.values()]) / len(clips),
    ),
)


# --- claims ----------------------------------------------------------------------------------------------

CLAIMS = {
    "diffusion transformer": "Sora is a diffusion model and its network is a transformer",
    "packing": "Sora packs clips of different sizes into one sequence as NaViT does",
    "masks": "Given frames enter Sora as in VDT: the frames, noise around them and a mask",
    "parameters": "How many parameters Sora has",
    "image size": "Sora generates images from 1920x1080 to 1080x1920",
    "failures": "Glass that shatters and food that is eaten come out wrong",
}
"""The claims of the exercise: a short name for each sentence of the ledger."""


def claims() -> dict[str, str]:
    """The status of each claim in the ledger."""
    status = {claim.claim: claim.status for claim in load_claims()}
    return {name: status[sentence] for name, sentence in CLAIMS.items()}


def _claims_with(**changes: str):
    def wrong() -> dict[str, str]:
        swapped = {
            "inferred": changes.get("inferred", "inferred"),
            "unknown": changes.get("unknown", "unknown"),
        }
        return {
            name: changes.get(name.replace(" ", "_"), swapped.get(status, status))
            for name, status in claims().items()
        }

    return wrong


CLAIMS_EXERCISE = Exercise(
    id="overview.claims",
    chapter=CHAPTER,
    title="Who said that?",
    minutes=8,
    difficulty=1,
    kind="value",
    reference=claims,
    oracle=lambda: {
        "diffusion transformer": "disclosed",
        "packing": "inferred",
        "masks": "inferred",
        "parameters": "unknown",
        "image size": "wrong",
        "failures": "disclosed",
    },
    cases=lambda seed: [Case()],
    hints=Hints(
        "For each sentence: did the people who built Sora say it, or somebody who reads papers?",
        "Guess, then look the six up in the ledger below the exercise: it says whose sentence each one is.",
        "report -> disclosed; review or deck -> inferred; nobody -> unknown; against the report -> wrong",
    ),
    misconceptions=(
        Misconception(
            id="cited_means_used",
            title="what the report cites as earlier work is taken for what Sora does",
            wrong=_claims_with(inferred="disclosed"),
            hints=Hints(
                "The report's reference list names NaViT. Does its text say that Sora packs?",
                "The two claims about packing and masks.",
                "A citation shows that authors know a paper; it is no description of their system",
            ),
            section="Who said that?",
            evidence=(
                "The deck and the review present NaViT, VDT, MDT and ViViT as Sora's parts; the report"
                " names them,"
                " where it does, as earlier work."
            ),
        ),
        Misconception(
            id="inferred_means_wrong",
            title="what is not disclosed is called wrong; it may well be right, and nobody outside knows",
            wrong=_claims_with(inferred="wrong"),
            hints=Hints(
                "Can you show that Sora does not pack?",
                "The difference between no evidence for and evidence against.",
                "inferred: plausible and unconfirmed; wrong: contradicted by its own source",
            ),
            section="Who said that?",
            evidence="Reasoning slip: absence of evidence read as evidence of absence.",
        ),
        Misconception(
            id="size_of_images",
            title="the sizes from 1920x1080 to 1080x1920 are taken for images; they are the videos'",
            wrong=_claims_with(image_size="disclosed"),
            hints=Hints(
                "The report gives two sizes: one for video, one for images. Which is which?",
                "The claim about the size of images.",
                "videos 1920x1080 to 1080x1920; images up to 2048x2048",
            ),
            section="Who said that?",
            evidence="The deck writes images where the report writes videos.",
        ),
        Misconception(
            id="no_failures",
            title="a maker's report is expected to hide failures; this one lists them",
            wrong=_claims_with(failures="inferred"),
            hints=Hints(
                "Who says that glass does not shatter properly?",
                "The claim about failures, and its source in the ledger.",
                "The report's own section on limits",
            ),
            section="Who said that?",
            evidence=(
                "Retellings quote “world simulator” without the report's own list of failures (glass, eating,"
                " objects that appear)."
            ),
        ),
        Misconception(
            id="parameters_guessed",
            title="a number that people repeat is taken for one that was inferred from something",
            wrong=_claims_with(unknown="inferred"),
            hints=Hints(
                "From which published fact would the number of parameters follow?",
                "The claim about parameters.",
                "unknown: not disclosed, and nothing public to infer it from",
            ),
            section="Who said that?",
            evidence=(
                "Reasoning slip: repetition read as evidence; the report says that it leaves details out."
            ),
        ),
    ),
    correct_alternatives=(
        lambda: dict(reversed(list(claims().items()))),
        lambda: {name: str(status) for name, status in claims().items()},
    ),
)


EXERCISES = (LATENT_SHAPE, TOKEN_COUNT, COMPRESSION, FRAMES_FOR, ADHERENCE, CLAIMS_EXERCISE)
