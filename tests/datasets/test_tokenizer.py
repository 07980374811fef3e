"""Ids of CLIP's tokenizer, and the messages when it is missing."""

import builtins
import pickle

import pytest
import torch

from evamm.datasets import tokenizer as module
from evamm.datasets.tokenizer import TokenizerUnavailableError, get_tokenizer
from evamm.registry import TRANSFORMS

SOT, EOT = 49406, 49407


def test_ids_are_those_of_clip():
    tokens = get_tokenizer()(['a photo of a cat', 'Hello  WORLD!'])
    assert tokens.shape == (2, 77) and tokens.dtype == torch.int64
    # Known from OpenAI's own tokenizer.
    assert tokens[0, :7].tolist() == [SOT, 320, 1125, 539, 320, 2368, EOT]
    assert tokens[1, :5].tolist() == [SOT, 3306, 1002, 256, EOT]
    assert tokens[0, 7:].count_nonzero() == 0


def test_a_long_text_ends_with_the_end_mark():
    tokens = get_tokenizer(16)(['cat ' * 50, 'cat ' * 14, 'cat ' * 13])
    assert tokens.shape == (3, 16)
    assert tokens[:, 0].tolist() == [SOT] * 3
    assert tokens[0, 1:15].tolist() == [2368] * 14 and tokens[0, -1] == EOT
    assert torch.equal(tokens[0], tokens[1])
    assert tokens[2, -2:].tolist() == [EOT, 0]
    # The model pools where the id is largest.
    assert tokens.argmax(-1).tolist() == [15, 15, 14]


def test_one_text_none_and_back():
    assert torch.equal(get_tokenizer()('a cat'), get_tokenizer()(['a cat']))
    assert get_tokenizer()([]).shape == (0, 77)
    assert get_tokenizer().decode(get_tokenizer()('A red Seven')[0]) == 'a red seven'


def test_it_is_shared_and_small_to_send():
    assert get_tokenizer() is get_tokenizer() and get_tokenizer(16) is not get_tokenizer()
    assert pickle.loads(pickle.dumps(get_tokenizer(16))) is get_tokenizer(16)
    assert len(pickle.dumps(get_tokenizer())) < 200


def test_known_words_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(module, '_MAX_KNOWN_WORDS', 50)
    inner = module._open_clip_tokenizer()
    for number in range(200):
        text = f'zq{chr(97 + number % 26)}{chr(97 + number // 26)}xw'
        assert get_tokenizer()(text)[0, 0] == SOT
    assert len(inner.cache) < 60
    assert get_tokenizer()('<end_of_text>')[0, :3].tolist() == [SOT, EOT, EOT]


def test_without_open_clip_the_error_names_the_extra(monkeypatch):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('open_clip'):
            raise ImportError('No module named open_clip')
        return imported(name, *args, **kwargs)

    module._open_clip_tokenizer.cache_clear()
    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(TokenizerUnavailableError, match=r'evamm\[clip\]'):
        get_tokenizer()('a cat')


def test_transform_takes_one_text_or_several():
    transform = TRANSFORMS.build({'type': 'evamm.TokenizeText', 'context_length': 8})
    one = transform({'text': 'a cat'})['text_tokens']
    several = transform({'text': ['a cat', 'a dog']})['text_tokens']
    assert one.shape == (8,) and several.shape == (2, 8)
    assert torch.equal(one, several[0]) and not torch.equal(one, several[1])
    with pytest.raises(TypeError, match='x.jpg.*None'):
        transform({'img_path': 'x.jpg', 'text': None})
    with pytest.raises(ValueError, match='context_length'):
        TRANSFORMS.build({'type': 'evamm.TokenizeText', 'context_length': 1})


def test_a_caption_is_chosen_by_the_seeded_generator():
    transform = TRANSFORMS.build({'type': 'evamm.ChooseText'})
    chosen = {transform({'text': ['a', 'b', 'c']})['text'] for _ in range(40)}
    assert chosen == {'a', 'b', 'c'}
    assert transform({'text': 'alone'})['text'] == 'alone'
