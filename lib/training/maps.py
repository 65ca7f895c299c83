"""A map for each language behind the encoder: unit vector v to A v + b, scaled to unit length.

`train.maps` says which:

rotated    A turns by `angle` of the way from the identity to a random rotation of the language
           (Haar measure, along the geodesic), b is 0. Cosines within a language stay what they
           are, those between languages fall: less alignment, the same monolingual retrieval.
free       the same at the beginning, and then trained like other weights.
centred    A is the identity, b less the language's mean (Libovický et al., arXiv 1911.03310).
projected  A removes the language's first `directions` right singular vectors, b is 0 (LIR: Yang
           et al., arXiv 2109.04727, section 3).

Means and directions are those of up to TEXTS training passages of the language. Maps are not part
of the checkpoint's own architecture: they stand in maps.safetensors beside it, and an encoder that
has them embeds no text whose language it is not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from lib.encoder import Encoder, on_device
from lib.params import Train
from lib.sampler import PairIndex
from lib.training.tokens import Tokens

FILE = "maps.safetensors"
TEXTS = 500  # of a language, that its mean or directions are estimated from
TURNED = ("rotated", "free")


class LanguageMaps(torch.nn.Module):
    """The maps of languages, by their code: matrix float32 [L, d, d], shift float32 [L, d]."""

    def __init__(
        self, languages: Sequence[str], matrix: np.ndarray, shift: np.ndarray, trained: bool = False
    ):
        super().__init__()
        self.languages = tuple(languages)
        self.matrix = torch.nn.Parameter(torch.from_numpy(matrix).float(), requires_grad=trained)
        self.register_buffer("shift", torch.from_numpy(shift).float())

    def forward(self, vectors: torch.Tensor, language: np.ndarray) -> torch.Tensor:
        """Unit vectors [n, d] of unit vectors and the languages' numbers int [n]."""
        order = np.argsort(language, kind="stable")
        present, first = np.unique(language[order], return_index=True)
        mapped = [
            vectors.index_select(0, on_device(vectors.device, rows)) @ self.matrix[code].T
            + self.shift[code]
            for code, rows in zip(present.tolist(), np.split(order, first[1:]), strict=True)
        ]
        back = on_device(vectors.device, np.argsort(order))
        return F.normalize(torch.cat(mapped).index_select(0, back), dim=-1)

    def numbers(self, languages: Sequence[str]) -> np.ndarray:
        """int64 [n]. Raises ValueError for a language without a map."""
        number = {code: n for n, code in enumerate(self.languages)}
        if unknown := sorted(set(languages) - number.keys()):
            raise ValueError(
                f"train.maps: language {unknown[0]!r} has no map "
                f"(expected {', '.join(self.languages)}: those of the corpus)"
            )
        return np.array([number[code] for code in languages], np.int64)


def put_in(encoder: Encoder, params: Train, texts: Tokens, index: PairIndex) -> None:
    """Give the encoder the maps that `params` asks for, of the corpus's languages; none for ""."""
    if not params.maps:
        return
    count, width = len(index.languages), encoder.width
    matrix, shift = np.tile(np.eye(width), (count, 1, 1)), np.zeros((count, width))
    for number, code in enumerate(index.languages):
        if params.maps in TURNED:
            matrix[number] = rotation(width, params.angle, params.seed, code)
        else:
            vectors = encoder.vectors(_passages(texts, index, number))
            if params.maps == "centred":
                shift[number] = -vectors.mean(0)
            else:
                matrix[number] -= spanned(vectors, params.directions)
    made = LanguageMaps(index.languages, matrix, shift, params.maps == "free")
    encoder.maps = made.to(encoder.device)


def rotation(width: int, angle: float, seed: int, language: str) -> np.ndarray:
    """float64 [d, d]: `angle` (0 to 1) of the way from the identity to a random rotation, which
    depends on seed and language alone. On the way every plane turns evenly."""
    from scipy.linalg import schur
    from scipy.stats import special_ortho_group

    generator = np.random.default_rng([seed, *language.encode()])
    turn = special_ortho_group.rvs(width, random_state=generator)
    triangle, basis = schur(turn, output="complex")  # diagonal, a rotation being normal
    part = np.exp(1j * angle * np.angle(triangle.diagonal()))
    return ((basis * part) @ basis.conj().T).real


def spanned(vectors: np.ndarray, directions: int) -> np.ndarray:
    """float64 [d, d]: the projection onto the first right singular vectors of vectors [n, d]."""
    first = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)[2][:directions]
    return first.T @ first


def _passages(texts: Tokens, index: PairIndex, language: int) -> list[np.ndarray]:
    """Tokens of a language's passages, evenly out of all."""
    pairs = np.flatnonzero(index.patterns[index.pattern, language])
    chosen = pairs[:: -(-len(pairs) // TEXTS)]
    return texts.take("passage", index.rows(chosen, np.full(len(chosen), language)))


def of_texts(encoder: Encoder, vectors: np.ndarray, languages: Sequence[str]) -> np.ndarray:
    """Vectors float32 [n, d] of texts as the encoder's maps have them; as they are where it has
    none. Raises ValueError for a language without a map."""
    if encoder.maps is None:
        return vectors
    numbers = encoder.maps.numbers(languages)
    with torch.no_grad():
        return mapped(encoder, on_device(encoder.device, vectors), numbers).cpu().numpy()


def mapped(encoder: Encoder, vectors: torch.Tensor, language: np.ndarray) -> torch.Tensor:
    """Vectors as the encoder's maps have them; as they are where it has none."""
    return vectors if encoder.maps is None else encoder.maps(vectors, language)


def save(encoder: Encoder, folder: Path) -> None:
    """Write the maps, where the encoder has some."""
    if (maps := encoder.maps) is not None:
        tensors = {"matrix": maps.matrix.detach().cpu(), "shift": maps.shift.cpu()}
        save_file(tensors, folder / FILE, metadata={"languages": " ".join(maps.languages)})


def load(folder: Path) -> LanguageMaps | None:
    """What `save` wrote; None where there is nothing."""
    if not (folder / FILE).is_file():
        return None
    with safe_open(folder / FILE, "np") as file:
        languages = file.metadata()["languages"].split()
        return LanguageMaps(languages, file.get_tensor("matrix"), file.get_tensor("shift"))
