"""The comparison of image-text pairs compares equal work."""

from dataclasses import asdict

import pytest
import timm
import torch

pytest.importorskip('open_clip')

from benchmarks import clip
from evamm.models.clip_variants import CLIP_ARCHS, TEXT_ARCHS, CLIPArch, TextArch
from evamm.models.variants import ARCHS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A pair of tiny towers under the name of a released one, in both libraries."""
    from open_clip import factory

    name = 'eva02-clip-b-16'
    released = ARCHS['eva02-clip-base']
    trunk = dict(asdict(released), embed_dims=128, depth=2, num_heads=2, ffn_hidden_dims=341)
    monkeypatch.setitem(TEXT_ARCHS, 'tiny', TextArch(64, 2, 2))
    monkeypatch.setitem(CLIP_ARCHS, name, CLIPArch(trunk, 32, 'tiny', 32))

    config = factory.get_model_config('EVA02-B-16')
    config['embed_dim'] = 32
    config['vision_cfg']['image_size'] = 32
    config['text_cfg'].update(width=64, heads=2, layers=2)
    monkeypatch.setitem(factory._MODEL_CONFIGS, 'EVA02-B-16', config)
    make = timm.create_model

    def make_small(*args: object, **kwargs: object) -> torch.nn.Module:
        return make(*args, **kwargs, embed_dim=128, depth=2, num_heads=2, img_size=32)

    monkeypatch.setattr(timm, 'create_model', make_small)
    return name


def test_a_table_of_equal_work(small: str, capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    try:
        clip.main(f'--models {small} --repeats 1 --batch 2 --text-tokens 8'.split())
    finally:
        torch.set_num_threads(threads)
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:5] == '| eva']
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert [row[1] for row in rows] == ['forward', 'train', 'memory']
    for row in rows:
        assert row[3] == '8' and float(row[5].split()[0]) > 0 and float(row[6]) < 1e-5
    assert rows[2][4].endswith(' MB')


def test_unequal_work_is_not_timed(small: str) -> None:
    peers = clip.build(small)
    images, tokens = clip.batch_of(small, 2, 8)
    with torch.no_grad():
        peers['open_clip'].model.text.text_projection[0, 0] += 1
    with pytest.raises(RuntimeError, match='open_clip does not compute'):
        clip.check_equal(peers, images, tokens)


def test_texts_begin_and_end_as_the_tokenizer_writes_them() -> None:
    _, tokens = clip.batch_of('eva02-clip-b-16', 3, 16)
    assert tokens.shape == (3, 77)
    assert (tokens[:, 0] == 49406).all() and (tokens[:, 15] == 49407).all()
    assert (tokens.argmax(1) == 15).all() and not tokens[:, 16:].any()
