"""Captions: choosing one, and turning it into token ids."""

import random

from mmcv.transforms import BaseTransform

from evamm.registry import TRANSFORMS

from ..tokenizer import CONTEXT_LENGTH, get_tokenizer


@TRANSFORMS.register_module()
class ChooseText(BaseTransform):
    """Take one of several captions at random; a single one stays as it is."""

    def transform(self, results: dict) -> dict:
        text = results['text']
        if not isinstance(text, str):
            results['text'] = random.choice(text)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class TokenizeText(BaseTransform):
    """Turn `text` into `text_tokens`: ids [context_length], or [n, context_length] of a list.

    Args:
        context_length: Number of ids per text; longer texts are cut, shorter ones padded by zeros.
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH) -> None:
        self.tokenizer = get_tokenizer(context_length)

    def transform(self, results: dict) -> dict:
        """
        Raises:
            TypeError: `text` is neither a text nor a list of texts.
        """
        text = results.get('text')
        several = isinstance(text, (list, tuple)) and all(isinstance(part, str) for part in text)
        if not isinstance(text, str) and not several:
            name = results.get('img_path', 'a sample')
            raise TypeError(f'TokenizeText: `text` of {name} must be a text, found {text!r:.80}')
        tokens = self.tokenizer(text)
        results['text_tokens'] = tokens if several else tokens[0]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(context_length={self.tokenizer.context_length})'
