"""Words of captions as numbers, for a text tower with a vocabulary of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class CaptionTokenizer:
    """One number a word; small, since the captions have few words.

    As in CLIP, a caption ends with an end token that has the highest number: there
    open_clip reads the text feature. Zeros fill up.

    Args:
        words: All words that captions may have.
        context_length: Numbers per caption, end token included.
    """

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        self.words = tuple(dict.fromkeys(words))
        self.context_length = context_length
        self._numbers = {word: i for i, word in enumerate(self.words, start=1)}

    @property
    def vocab_size(self) -> int:
        """Words, the filler and the end token."""
        return len(self.words) + 2

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Numbers of captions, int64 ``(N, context_length)``.

        Raises:
            ValueError: for an unknown word or a caption that is too long.
        """
        return torch.tensor([self._encode(caption) for caption in captions])

    def _encode(self, caption: str) -> list[int]:
        words = caption.split()
        unknown = [word for word in words if word not in self._numbers]
        if unknown or len(words) >= self.context_length:
            raise ValueError(
                f'caption {caption!r} does not fit the text tower: '
                + (
                    f'unknown words {unknown}'
                    if unknown
                    else f'more than {self.context_length - 1} words'
                )
            )
        numbers = [self._numbers[word] for word in words] + [self.vocab_size - 1]
        return numbers + [0] * (self.context_length - len(numbers))
