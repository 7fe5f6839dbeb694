"""Exercises of chapter 05: patches, the convolution, the class token, counting weights, other sizes."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora_edu.patches import convolution_weight, patchify
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property
from sora_edu.vit import embed, resize_positions, vit_parameters

CHAPTER = "05_vision_transformer"


# --- patchify --------------------------------------------------------------------------------------------


def _patchify_cases(seed: int) -> list[Case]:
    """Height, width and channels differ, so that no two axes can be mistaken for each other unseen."""
    noise = torch.Generator().manual_seed(seed)
    small = torch.arange(16.0).view(1, 1, 2, 8)
    return [
        Case(small, 2),
        Case(torch.randn(2, 3, 4, 6, generator=noise), 2),
        Case(torch.randn(1, 2, 9, 3, generator=noise), 3),
    ]


def _patchify_oracle(x: Tensor, patch: int) -> Tensor:
    """torch's own sliding window, whose numbers come as (channels, rows, columns)."""
    windows = F.unfold(x, patch, stride=patch).transpose(1, 2)
    return windows.unflatten(2, (x.shape[1], patch**2)).transpose(2, 3).flatten(2)


def _as_in_memory(x, patch):
    return x.reshape(x.shape[0], -1, patch * patch * x.shape[1])


def _channels_first(x, patch):
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


def _down_the_columns(x, patch):
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 4, 2, 3, 5, 1).reshape(b, -1, patch * patch * c)


def _pixels_transposed(x, patch):
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 5, 3, 1).reshape(b, -1, patch * patch * c)


def _overlapping(x, patch):
    windows = F.unfold(x, patch).transpose(1, 2)
    return windows.unflatten(2, (x.shape[1], patch**2)).transpose(2, 3).flatten(2)


def _patch_by_patch(x, patch):
    tokens = []
    for top in range(0, x.shape[2], patch):
        for left in range(0, x.shape[3], patch):
            square = x[:, :, top : top + patch, left : left + patch]
            tokens.append(square.permute(0, 2, 3, 1).flatten(1))
    return torch.stack(tokens, dim=1)


def _by_permuting(x, patch):
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)


PATCHIFY = Exercise(
    id="vit.patchify",
    chapter=CHAPTER,
    title="Cut a picture into tokens",
    minutes=12,
    difficulty=2,
    reference=patchify,
    oracle=_patchify_oracle,
    cases=_patchify_cases,
    hints=Hints(
        "How many tokens does a picture of 4 by 6 pixels make with patches of 2, and how long is each?",
        "Split h into (rows, p) and w into (columns, p); then bring the two patch axes to the end.",
        "b c (h p) (w q) -> b (h w) (p q c)",
    ),
    misconceptions=(
        Misconception(
            id="as_in_memory",
            title="one reshape: it groups numbers as they lie in memory, and a patch does not lie together",
            wrong=_as_in_memory,
            hints=Hints(
                "Which pixels are in your token 0? Are they a square?",
                "The reshape: what lies next to a pixel in memory, the one below it or the one to the right?",
                "reshape to (b, c, h/p, p, w/p, p), permute, and only then flatten",
            ),
            section="A picture is a sequence",
            evidence=(
                "duoan/TorchCode issue 21: a grader accepted exactly this answer; gupta-abhay/pytorch-vit"
                " issue 7: tokens that mix places and colours, and a model that trained all the same."
            ),
        ),
        Misconception(
            id="channels_first",
            title="inside a token the channels come first, as in a convolution; here they come last",
            wrong=_channels_first,
            hints=Hints(
                "Which three numbers stand first in a token of a colour picture?",
                "The last permutation, or F.unfold, which has an order of its own.",
                "d = (row, column, channel), the channel running fastest",
            ),
            section="A picture is a sequence",
            evidence=(
                "cloneofsimo/minRF issue 6 and Vchitect/Latte issue 132: pixels come back in another order"
                " than they were cut, and readers ask which order is meant."
            ),
        ),
        Misconception(
            id="down_the_columns",
            title="patches are numbered down the columns; here they run along the rows",
            wrong=_down_the_columns,
            hints=Hints(
                "Is your token 1 to the right of token 0, or below it?",
                "The order of the two grid axes when you flatten them.",
                "patch number = row * columns + column",
            ),
            section="A picture is a sequence",
            evidence=(
                "pytorch/torchtitan pull request 4244: swapped axes hide each other on square grids; "
                "lightly-train pull request 189 leaves a note that h and w are swapped."
            ),
        ),
        Misconception(
            id="pixels_transposed",
            title="inside each patch rows and columns are swapped: every patch is mirrored at its diagonal",
            wrong=_pixels_transposed,
            hints=Hints(
                "In a patch of 2 by 2, which pixel is the second number of your token?",
                "The order of the two patch axes, p and q.",
                "… (p q c), and not (q p c)",
            ),
            section="A picture is a sequence",
            evidence=(
                "NVIDIA/flashdreams pull request 284: (c ph pw) for (c pw ph) turns each block over and"
                " draws a checkerboard on every frame."
            ),
        ),
        Misconception(
            id="overlapping",
            title="the window moves one pixel at a time: patches overlap",
            wrong=_overlapping,
            hints=Hints(
                "How many tokens should there be, and how many are there?",
                "The stride.",
                "n = (h / p)(w / p), so the window moves by p",
            ),
            section="A picture is a sequence",
            evidence=(
                "Reasoning slip: the window of a convolution usually moves by one; stride 1 is the default of"
                " F.unfold and of nn.Conv2d."
            ),
        ),
    ),
    correct_alternatives=(_patch_by_patch, _by_permuting),
)


# --- convolution_weight ----------------------------------------------------------------------------------


def _kernel_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    small = torch.arange(12.0)[None]
    return [
        Case(small, 3, 2),
        Case(torch.randn(5, 27, generator=noise), 3, 3),
        Case(torch.randn(12, 12, generator=noise), 3, 2),
    ]


def _kernel_oracle(weight: Tensor, channels: int, patch: int) -> Tensor:
    """What the linear map answers to one lit pixel is what the kernel holds there."""
    kernel = weight.new_zeros(len(weight), channels, patch, patch)
    for c in range(channels):
        for row in range(patch):
            for column in range(patch):
                lit = torch.zeros(patch, patch, channels)
                lit[row, column, c] = 1
                kernel[:, c, row, column] = weight @ lit.flatten()
    return kernel


def _only_viewed(weight, channels, patch):
    return weight.reshape(len(weight), channels, patch, patch)


def _kernel_transposed(weight, channels, patch):
    return convolution_weight(weight, channels, patch).transpose(2, 3)


def _kernel_flipped(weight, channels, patch):
    return convolution_weight(weight, channels, patch).flip(2, 3)


def _channels_left_last(weight, channels, patch):
    return weight.reshape(len(weight), patch, patch, channels)


def _kernel_by_permuting(weight, channels, patch):
    return weight.reshape(-1, patch, patch, channels).permute(0, 3, 1, 2)


def _kernel_by_channel(weight, channels, patch):
    planes = [weight[:, c::channels].reshape(-1, patch, patch) for c in range(channels)]
    return torch.stack(planes, dim=1)


def _matches_conv2d(kernel_of) -> bool:
    generator = torch.Generator().manual_seed(0)
    linear, x = nn.Linear(12, 5, bias=False), torch.randn(1, 3, 2, 2, generator=generator)
    linear.weight.data = torch.randn(5, 12, generator=generator)
    convolved = F.conv2d(x, kernel_of(linear.weight.detach(), 3, 2), stride=2).flatten()
    return torch.allclose(convolved, linear(patchify(x, 2)).detach().flatten(), atol=1e-4)


CONVOLUTION = Exercise(
    id="vit.convolution_weight",
    chapter=CHAPTER,
    title="A linear layer as a convolution",
    minutes=10,
    difficulty=2,
    reference=convolution_weight,
    oracle=_kernel_oracle,
    cases=_kernel_cases,
    properties=(Property("conv2d with your kernel gives what the linear layer gives", _matches_conv2d),),
    hints=Hints(
        "Number 5 of a flattened 2 by 2 patch with three channels: which pixel, which channel?",
        "First give the last axis of the weight its three axes back, in the order of `patchify`.",
        "out (p q c) -> out c p q",
    ),
    misconceptions=(
        Misconception(
            id="only_viewed",
            title="the numbers get a new shape and keep their order: colours and places are mixed",
            wrong=_only_viewed,
            hints=Hints(
                "With `patchify`, which index runs fastest in a token? And in a kernel?",
                "The reshape: the target's order of axes is not the source's.",
                "reshape to (out, p, p, c) first, then move c forward",
            ),
            section="One linear layer, three ways",
            evidence=(
                "lucidrains/vit-pytorch issue 352: one pattern (p1 p2 pf c) where checkpoints have another,"
                " so that weights load and mean something else."
            ),
        ),
        Misconception(
            id="kernel_transposed",
            title="rows and columns of the kernel are swapped",
            wrong=_kernel_transposed,
            hints=Hints(
                "Light the pixel to the right of the corner. Which number of the kernel should it meet?",
                "The order in which you move p and q.",
                "out c p q: rows before columns",
            ),
            section="One linear layer, three ways",
            evidence=(
                "Reasoning slip: x and y for rows and columns, as images are addressed in graphics; "
                "NVIDIA/flashdreams pull request 284 has the same swap in a decoder."
            ),
        ),
        Misconception(
            id="kernel_flipped",
            title="the kernel is turned round, as in a textbook's convolution; torch does not flip",
            wrong=_kernel_flipped,
            hints=Hints(
                "Which pixel does kernel[0, 0] multiply in torch: the first or the last?",
                "Is there a `flip` in your code? What is it for?",
                "nn.Conv2d computes a cross-correlation: sum of kernel[p, q] x[p, q]",
            ),
            section="One linear layer, three ways",
            evidence=(
                "Reasoning slip: in mathematics a convolution flips its kernel; torch.nn.Conv2d's page says"
                " that it computes a cross-correlation."
            ),
        ),
        Misconception(
            id="channels_left_last",
            title="channels stay last; torch's kernels have them second",
            wrong=_channels_left_last,
            hints=Hints(
                "What is the shape of `nn.Conv2d(3, 5, 2).weight`?",
                "Axis 1 of your result.",
                "(out, c, p, p)",
            ),
            section="One linear layer, three ways",
            evidence=(
                "Reasoning slip: the order of TensorFlow and JAX, where kernels end in channels; the released"
                " ViT weights are JAX's and are transposed when they are converted."
            ),
        ),
    ),
    correct_alternatives=(_kernel_by_permuting, _kernel_by_channel),
)


# --- embed -----------------------------------------------------------------------------------------------


def _embed_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def sizes(b, n, d):
        return (
            torch.randn(b, n, d, generator=noise),
            torch.randn(d, generator=noise),
            torch.randn(n + 1, d, generator=noise),
        )

    small = (torch.tensor([[[1.0], [2.0]]]), torch.tensor([9.0]), torch.tensor([[0.1], [0.2], [0.3]]))
    return [Case(*small), Case(*sizes(2, 4, 3)), Case(*sizes(3, 1, 5))]


def _embed_oracle(patches: Tensor, class_token: Tensor, positions: Tensor) -> Tensor:
    out = patches.new_empty(len(patches), len(positions), patches.shape[2])
    for b in range(len(patches)):
        for place, code in enumerate(positions):
            out[b, place] = code + (class_token if place == 0 else patches[b, place - 1])
    return out


def _class_token_last(patches, class_token, positions):
    last = class_token.expand(len(patches), 1, -1)
    return torch.cat([patches, last], dim=1) + positions


def _class_token_without_position(patches, class_token, positions):
    first = class_token.expand(len(patches), 1, -1)
    return torch.cat([first, patches + positions[1:]], dim=1)


def _no_positions(patches, class_token, positions):
    return torch.cat([class_token.expand(len(patches), 1, -1), patches], dim=1)


def _rows_off_by_one(patches, class_token, positions):
    first = class_token.expand(len(patches), 1, -1)
    return torch.cat([first, patches + positions[:-1]], dim=1)


def _first_patch_replaced(patches, class_token, positions):
    first = class_token.expand(len(patches), 1, -1)
    return torch.cat([first, patches[:, 1:]], dim=1) + positions[:-1]


def _positions_of_the_batch(patches, class_token, positions):
    first = class_token.expand(len(patches), 1, -1)
    return torch.cat([first, patches], dim=1) + positions[: len(patches), None]


def _embed_into_zeros(patches, class_token, positions):
    tokens = F.pad(patches, (0, 0, 1, 0))
    tokens[:, 0] = class_token
    return tokens + positions[None]


def _embed_separately(patches, class_token, positions):
    first = (class_token + positions[0]).repeat(len(patches), 1)[:, None]
    return torch.cat([first, patches + positions[1:]], dim=1)


EMBED = Exercise(
    id="vit.embed",
    chapter=CHAPTER,
    title="Class token and positions",
    minutes=8,
    difficulty=1,
    reference=embed,
    oracle=_embed_oracle,
    cases=_embed_cases,
    hints=Hints(
        "How many rows does `positions` have, and how many patches are there?",
        "First make the class token as long as the batch, then put it before the patches, then add.",
        "z_0 = [class; patch_1; …; patch_n] + positions",
    ),
    misconceptions=(
        Misconception(
            id="class_token_last",
            title="the class token stands behind the patches; the answer is read from place 0",
            wrong=_class_token_last,
            hints=Hints(
                "Which token stands at place 0 of your sequence?",
                "The order of the two things in `torch.cat`.",
                "cat([class, patches])",
            ),
            section="A token that belongs to no patch",
            evidence=(
                "lucidrains/vit-pytorch issue 18 takes x[:, 0] for the first patch; some later models do"
                " place the token in the middle or at the end, and then read it there."
            ),
        ),
        Misconception(
            id="class_token_without_position",
            title="the class token has no position added",
            wrong=_class_token_without_position,
            hints=Hints(
                "Is row 0 of `positions` used anywhere?",
                "Add positions before or after joining: which tokens get one?",
                "join first, then add all n + 1 rows",
            ),
            section="A token that belongs to no patch",
            evidence=(
                "labmlai/annotated_deep_learning_paper_implementations pull request 221 and"
                " NVIDIA/Megatron-LM pull request 6260: positions were added before the class token was"
                " joined on."
            ),
        ),
        Misconception(
            id="no_positions",
            title="no positions are added: the model will see a bag of patches",
            wrong=_no_positions,
            hints=Hints(
                "Does your answer change when `positions` changes?",
                "What happens to the sequence after it is joined?",
                "[class; patches] + positions",
            ),
            section="A token that belongs to no patch",
            evidence=(
                "jeonsworld/ViT-pytorch issue 6: a reader finds that positions start as zeros and asks what"
                " they are for. Left out, every shape is right and the loss falls."
            ),
        ),
        Misconception(
            id="rows_off_by_one",
            title="patch i gets row i, which is its neighbour's; row 0 belongs to the class token",
            wrong=_rows_off_by_one,
            hints=Hints(
                "Which row does patch 0 get? Which row is left over?",
                "The slice of `positions`.",
                "patch i stands at place i + 1",
            ),
            section="A token that belongs to no patch",
            evidence=(
                "lucidrains/vit-pytorch pull request 173: indices of patches are not moved on by the one"
                " place that the class token takes."
            ),
        ),
        Misconception(
            id="first_patch_replaced",
            title="the class token takes the first patch's place, and that patch is gone",
            wrong=_first_patch_replaced,
            hints=Hints(
                "How many tokens leave your function for four patches?",
                "Is anything cut off the patches?",
                "n patches and 1 class token: n + 1 tokens",
            ),
            section="A token that belongs to no patch",
            evidence="lucidrains/vit-pytorch issue 18: the reader believes that token 0 is the first patch.",
        ),
        Misconception(
            id="positions_of_the_batch",
            title="positions are added along the batch: all tokens of a picture get the same",
            wrong=_positions_of_the_batch,
            hints=Hints(
                "Do two patches of one picture get different rows?",
                "Which axis of the sequence do the rows of `positions` meet?",
                "(b, n + 1, d) + (n + 1, d): the last two axes line up by themselves",
            ),
            section="A token that belongs to no patch",
            evidence=(
                "songyangco/GETNext issue 2: a code for (length, batch, d) used on (batch, length, d); "
                "chapter 02 breaks a model with it."
            ),
        ),
    ),
    correct_alternatives=(_embed_into_zeros, _embed_separately),
)


# --- vit_parameters --------------------------------------------------------------------------------------


def _parameter_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    patch, side = rng.randint(2, 4), rng.randint(3, 6)
    return [
        Case(1, 4, 8, 2, 4, 1, 3),
        Case(12, 768, 3072, 16, 224),
        Case(
            rng.randint(2, 9), 8 * rng.randint(1, 6), rng.randint(20, 90), patch, patch * side,
            rng.randint(2, 4), rng.randint(2, 30),
        ),
    ]  # fmt: skip


def _parameter_oracle(depth, width, hidden, patch, image, channels=3, classes=1000) -> int:
    """Builds the layers of torch's own transformer, without memory for their numbers, and counts."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(width, 1, hidden, norm_first=True)
        encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        first = nn.Conv2d(channels, width, patch, stride=patch)
        last = nn.Linear(width, classes)
        places = first(torch.zeros(1, channels, image, image)).flatten(2).shape[2]
        tables = nn.Embedding(places + 1, width), nn.Embedding(1, width)
    return sum(w.numel() for part in (encoder, first, last, *tables) for w in part.parameters())


def _counts(depth, width, hidden, patch, image, channels=3, classes=1000, **wrong) -> int:
    """The closed form, with what is `wrong` in the place of what is right."""
    parts = {
        "projection": (patch**2 * channels + 1) * width,
        "class_token": width,
        "positions": ((image // patch) ** 2 + 1) * width,
        "attention": 4 * width * width + 4 * width,
        "mlp": 2 * width * hidden + hidden + width,
        "norms": 4 * width,
        "last_norm": 2 * width,
        "head": (width + 1) * classes,
    } | wrong
    inside = ("attention", "mlp", "norms")
    outside = sum(count for name, count in parts.items() if name not in inside)
    return outside + depth * sum(parts[name] for name in inside)


def _n_is_p_squared(depth, width, hidden, patch, image, channels=3, classes=1000):
    sizes = (depth, width, hidden, patch, image, channels, classes)
    return _counts(*sizes, positions=(patch**2 + 1) * width)


def _side_not_area(depth, width, hidden, patch, image, channels=3, classes=1000):
    sizes = (depth, width, hidden, patch, image, channels, classes)
    return _counts(*sizes, positions=(image // patch + 1) * width)


def _no_biases(depth, width, hidden, patch, image, channels=3, classes=1000):
    sizes = (depth, width, hidden, patch, image, channels, classes)
    return _counts(*sizes, attention=4 * width * width, mlp=2 * width * hidden)


def _no_class_position(depth, width, hidden, patch, image, channels=3, classes=1000):
    sizes = (depth, width, hidden, patch, image, channels, classes)
    return _counts(*sizes, positions=(image // patch) ** 2 * width)


def _a_projection_per_patch(depth, width, hidden, patch, image, channels=3, classes=1000):
    sizes = (depth, width, hidden, patch, image, channels, classes)
    return _counts(*sizes, projection=(image // patch) ** 2 * (patch**2 * channels + 1) * width)


def _no_output_projection(depth, width, hidden, patch, image, channels=3, classes=1000):
    sizes = (depth, width, hidden, patch, image, channels, classes)
    return _counts(*sizes, attention=3 * width * width + 3 * width)


def _last_norm_forgotten(depth, width, hidden, patch, image, channels=3, classes=1000):
    return _counts(depth, width, hidden, patch, image, channels, classes, last_norm=0)


def _count_by_shapes(depth, width, hidden, patch, image, channels=3, classes=1000):
    attention = [(width, width), (width,)] * 4
    block = [*attention, (hidden, width), (hidden,), (width, hidden), (width,)] + 4 * [(width,)]
    rest = [(patch, patch, channels, width), (width,), (width,), ((image // patch) ** 2 + 1, width)]
    rest += [(width,), (width,), (classes, width), (classes,)]
    return sum(math.prod(shape) for shape in rest + depth * block)


PARAMETERS = Exercise(
    id="vit.parameters",
    name="vit_parameters",
    chapter=CHAPTER,
    title="How many weights?",
    minutes=15,
    difficulty=2,
    reference=vit_parameters,
    oracle=_parameter_oracle,
    cases=_parameter_cases,
    hints=Hints(
        "Which parts appear once, and which once in each block?",
        "Print `inspect.getsource(course_vit.ViT.__init__)` and go through it; every linear map has a weight"
        " and a bias.",
        "(P²C + 1)D + D + (N + 1)D + L (4D(D + 1) + 2DM + M + D + 4D) + 2D + (D + 1)K, N = (side / P)²",
    ),
    misconceptions=(
        Misconception(
            id="n_is_p_squared",
            title="N is taken to be P x P; P is the side of a patch in pixels, N the number of patches",
            wrong=_n_is_p_squared,
            hints=Hints(
                "A picture of 224 pixels, patches of 16: how many patches along one side?",
                "The number of rows in the table of positions.",
                "N = H W / P²",
            ),
            section="A picture is a sequence",
            evidence=(
                "The deck behind this course writes N = P x P tokens; with 224 and 16 that is 256 for 196."
            ),
        ),
        Misconception(
            id="side_not_area",
            title="patches are counted along one side only",
            wrong=_side_not_area,
            hints=Hints(
                "How many patches has a picture of 4 by 4 pixels with patches of 2?",
                "The number of rows in the table of positions.",
                "N = (side / P)²",
            ),
            section="A picture is a sequence",
            evidence="Reasoning slip: side / P is the number of columns, not of patches.",
        ),
        Misconception(
            id="no_biases",
            title="the biases inside the blocks are forgotten",
            wrong=_no_biases,
            hints=Hints(
                "How many numbers has `nn.Linear(4, 4)`?",
                "Attention and feed-forward network: what besides the matrices?",
                "D inputs to M outputs: (D + 1) M",
            ),
            section="How big is a ViT?",
            evidence=(
                "manjunathshiva/turboquant-mlx pull request 85 counts a tower with its matrices alone, and"
                " needs 'about'; vit-pytorch, whose q, k, v have no bias, is asked in issue 329 why it"
                " differs from timm."
            ),
        ),
        Misconception(
            id="no_class_position",
            title="the class token has no row in the table of positions",
            wrong=_no_class_position,
            hints=Hints(
                "How long is the sequence that enters the first block?",
                "The number of rows in the table of positions.",
                "N + 1 rows",
            ),
            section="A token that belongs to no patch",
            evidence=(
                "labmlai/annotated_deep_learning_paper_implementations pull request 221: positions for"
                " the patches only."
            ),
        ),
        Misconception(
            id="a_projection_per_patch",
            title="every patch gets a projection of its own; one is shared by all",
            wrong=_a_projection_per_patch,
            hints=Hints(
                "How many linear layers project patches?",
                "The line of the constructor that makes `patch_embed`.",
                "one matrix of P²C x D for all patches",
            ),
            section="One linear layer, three ways",
            evidence=(
                "Reasoning slip: drawings show an arrow for each patch, and the deck writes one product a"
                " patch before it writes one for all."
            ),
        ),
        Misconception(
            id="no_output_projection",
            title="attention is counted as three matrices; the heads' answers pass a fourth",
            wrong=_no_output_projection,
            hints=Hints(
                "What happens to the answers of the heads after they are put side by side?",
                "Count the linear maps in an attention layer.",
                "queries, keys, values, output: 4 D (D + 1)",
            ),
            section="How big is a ViT?",
            evidence=(
                "apapiu/transformer_latent_diffusion really has no output projection; a ViT counted like it"
                " loses 7 million weights at size B."
            ),
        ),
        Misconception(
            id="last_norm_forgotten",
            title="the LayerNorm after the last block is forgotten",
            wrong=_last_norm_forgotten,
            hints=Hints(
                "By how much are you off? Is it a multiple of the width?",
                "What stands between the last block and the head?",
                "+ 2 D",
            ),
            section="How big is a ViT?",
            evidence=(
                "Reasoning slip: figure 1 of the paper draws two norms in a block and none behind the last;"
                " equation 4 has it."
            ),
        ),
    ),
    correct_alternatives=(_count_by_shapes, lambda *sizes, **named: _counts(*sizes, **named)),
)


# --- resize_positions ------------------------------------------------------------------------------------


def _resize_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Case(torch.tensor([[5.0], [0.0], [1.0], [2.0], [3.0], [4.0], [6.0]]), (2, 3), (2, 4)),
        Case(torch.randn(1 + 12, 3, generator=noise), (3, 4), (5, 6)),
        Case(torch.randn(1 + 16, 2, generator=noise), (2, 8), (3, 5)),
        Case(torch.randn(1 + 16, 2, generator=noise), (4, 4), (7, 3)),
    ]


def _cubic(distance: float, a: float = -0.75) -> float:
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def _stretch(old: int, new: int) -> Tensor:
    """The (new, old) matrix of cubic interpolation along one axis, edges repeated (Keys 1981)."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for place in range(new):
        centre = (place + 0.5) * old / new - 0.5
        for cell in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[place, min(max(cell, 0), old - 1)] += _cubic(centre - cell)
    return matrix


def _resize_oracle(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    rows, columns = _stretch(old[0], new[0]), _stretch(old[1], new[1])
    places = torch.einsum("yh,xw,hwd->yxd", rows, columns, table[1:].double().view(*old, -1))
    return torch.cat([table[:1], places.flatten(0, 1).to(table)])


def _stretched_as_a_line(table, old, new):
    size = new[0] * new[1]
    line = F.interpolate(table[1:].T[None, :, None], size=(1, size), mode="bicubic")
    return torch.cat([table[:1], line[0, :, 0].T])


def _rows_and_columns_swapped(table, old, new):
    picture = table[1:].T.reshape(1, -1, old[1], old[0])
    picture = F.interpolate(picture, size=new, mode="bicubic")
    return torch.cat([table[:1], picture[0].flatten(1).T])


def _nearest_row(table, old, new):
    picture = table[1:].T.reshape(1, -1, *old)
    picture = F.interpolate(picture, size=new, mode="nearest-exact")
    return torch.cat([table[:1], picture[0].flatten(1).T])


def _corners_aligned(table, old, new):
    picture = table[1:].T.reshape(1, -1, *old)
    picture = F.interpolate(picture, size=new, mode="bicubic", align_corners=True)
    return torch.cat([table[:1], picture[0].flatten(1).T])


def _channels_taken_for_places(table, old, new):
    picture = table[1:].reshape(1, -1, *old)
    picture = F.interpolate(picture, size=new, mode="bicubic")
    return torch.cat([table[:1], picture[0].flatten(1).T])


def _cut_or_padded(table, old, new):
    rows = [table[1 + k % (old[0] * old[1])] for k in range(new[0] * new[1])]
    return torch.stack([table[0], *rows])


def _resize_by_permuting(table, old, new):
    picture = table[1:].reshape(*old, -1).permute(2, 0, 1)[None]
    picture = F.interpolate(picture, size=new, mode="bicubic")
    return torch.cat([table[:1], picture[0].permute(1, 2, 0).reshape(-1, table.shape[1])])


RESIZE = Exercise(
    id="vit.resize_positions",
    chapter=CHAPTER,
    title="A larger picture",
    minutes=15,
    difficulty=3,
    reference=resize_positions,
    oracle=_resize_oracle,
    cases=_resize_cases,
    properties=(
        Property(
            "the same grid gives the same table",
            lambda f: torch.allclose(
                f(torch.arange(14.0).view(7, 2), (2, 3), (2, 3)), torch.arange(14.0).view(7, 2), atol=1e-4
            ),
        ),
    ),
    hints=Hints(
        "Row 0 belongs to no patch. How do the other rows lie in the picture?",
        "Lay the rows out as (1, d, rows, columns), call F.interpolate, flatten again, put row 0 in front.",
        "(h w) d -> 1 d h w; F.interpolate(…, size=new, mode='bicubic'); 1 d h w -> (h w) d",
    ),
    misconceptions=(
        Misconception(
            id="stretched_as_a_line",
            title="the table is stretched as one long line; rows of the picture run into each other",
            wrong=_stretched_as_a_line,
            hints=Hints(
                "Between which two old places should a new place at the left edge lie?",
                "The shape in which you hand the table to F.interpolate.",
                "Lay it out in two dimensions first: (1, d, rows, columns)",
            ),
            section="Learn, then learn again",
            evidence=(
                "Reasoning slip: the table is stored as a list. Section 3.2 of the ViT paper says: 2-D"
                " interpolation, according to their place in the picture."
            ),
        ),
        Misconception(
            id="rows_and_columns_swapped",
            title="the old table is laid out with rows and columns swapped",
            wrong=_rows_and_columns_swapped,
            hints=Hints(
                "Try a table of 2 rows and 3 columns. Which two entries does place 1 lie between?",
                "The order of the two sizes in your reshape. A square grid hides this.",
                "(h w) -> h, w with h = old[0] rows",
            ),
            section="Learn, then learn again",
            evidence=(
                "pytorch/torchtitan pull request 4244: coordinates and meshgrid swapped; two errors that hide"
                " each other on squares."
            ),
        ),
        Misconception(
            id="nearest_row",
            title="each new place copies the nearest old row; neighbours become the same",
            wrong=_nearest_row,
            hints=Hints(
                "Do two neighbouring new places have different codes?",
                "The `mode` of F.interpolate; its default is 'nearest'.",
                "mode='bicubic'",
            ),
            section="Learn, then learn again",
            evidence="Reasoning slip: the default mode of F.interpolate is left as it is.",
        ),
        Misconception(
            id="corners_aligned",
            title="corners are aligned: the outermost old and new centres are taken for the same place",
            wrong=_corners_aligned,
            hints=Hints(
                "Cut each of two patches in half. Do the new centres lie on the old ones?",
                "The argument `align_corners`.",
                "centre of new cell i: (i + 1/2) old/new - 1/2",
            ),
            section="Learn, then learn again",
            evidence=(
                "The JAX release (scipy's zoom) aligns corners and the PyTorch ports do not, so both are"
                " met; weights fine-tuned with one need it."
            ),
        ),
        Misconception(
            id="channels_taken_for_places",
            title="reshaped without a transpose: channels and places are mixed",
            wrong=_channels_taken_for_places,
            hints=Hints(
                "What does the old table hold next to each other: two places, or two channels?",
                "The reshape: the channels have to come first *by a permutation*.",
                "reshape to (h, w, d), then permute to (d, h, w)",
            ),
            section="Learn, then learn again",
            evidence=(
                "lightly-ai/lightly-train pull request 119: tokens were reshaped to (b, d, h, w) without"
                " the permutation."
            ),
        ),
        Misconception(
            id="cut_or_padded",
            title="rows are cut off or repeated until the number fits; every place means another spot",
            wrong=_cut_or_padded,
            hints=Hints(
                "Where in the picture was old row 5, and where is new row 5?",
                "Is anything resized in your code?",
                "new codes lie between old ones: interpolate",
            ),
            section="Learn, then learn again",
            evidence=(
                "facebookresearch/dino issue 8: a reader proposes to take the first rows of the table for a"
                " smaller picture."
            ),
        ),
    ),
    correct_alternatives=(_resize_by_permuting, _resize_oracle),
    tolerance=1e-4,
)


EXERCISES = (PATCHIFY, CONVOLUTION, EMBED, PARAMETERS, RESIZE)
