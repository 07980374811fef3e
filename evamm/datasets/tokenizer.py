"""Captions as token ids: the byte-pair tokenizer of CLIP, from open_clip."""

from collections.abc import Sequence
from functools import lru_cache

import torch

CONTEXT_LENGTH = 77
VOCAB_SIZE = 49408
# open_clip keeps every word it has ever seen; captions of the web hold no end of new ones.
_MAX_KNOWN_WORDS = 200_000


class TokenizerUnavailableError(ImportError):
    """open_clip, which carries the tokenizer, is not installed."""


@lru_cache(maxsize=1)
def _open_clip_tokenizer() -> object:
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise TokenizerUnavailableError(
            'The tokenizer of CLIP comes with the package open_clip, which cannot be imported '
            f'({error}). Install the extra that brings it: pip install "evamm[clip]", or just: '
            'pip install open-clip-torch'
        ) from error
    return SimpleTokenizer()


class Tokenizer:
    """Texts to ids [n, context_length]: start, text, end, zeros; long texts are cut before the end.

    Made by :func:`get_tokenizer`. A copy in another process finds the vocabulary there.

    Args:
        context_length: Number of ids per text, at least 2.
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH) -> None:
        if context_length < 2:
            raise ValueError(
                f'tokenizer: `context_length` must be at least 2, found {context_length}'
            )
        self.context_length = context_length

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Ids of one text or of several, int64 [n, context_length]."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokenizer = _open_clip_tokenizer()
        if len(tokenizer.cache) > _MAX_KNOWN_WORDS:
            tokenizer.cache = {
                '<start_of_text>': '<start_of_text>',
                '<end_of_text>': '<end_of_text>',
            }
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        return tokenizer(texts, context_length=self.context_length)

    def decode(self, tokens: torch.Tensor) -> str:
        """The text of ids [context_length] as the model sees it (lower case, without marks)."""
        tokenizer = _open_clip_tokenizer()
        marks = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
        ids = [token for token in tokens.tolist() if token not in marks]
        return tokenizer.decode(ids).strip()

    def __reduce__(self) -> tuple:
        return get_tokenizer, (self.context_length,)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(context_length={self.context_length})'


@lru_cache(maxsize=8)
def get_tokenizer(context_length: int = CONTEXT_LENGTH) -> Tokenizer:
    """The tokenizer of CLIP; the vocabulary is read once per process, at the first text.

    Args:
        context_length: Number of ids per text.

    Returns:
        A function of a text, or a list of texts, that gives int64 [n, context_length].
    """
    return Tokenizer(context_length)
